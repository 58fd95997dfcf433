"""An answer that has begun: what it says so far, as text after the prompt for it."""

from __future__ import annotations

from ggq.runtime.template.template import Segment

__all__ = ["begun_segments"]


def begun_segments(
    content: str, thoughts: str, think: tuple[str, str], prompt: str, thinking: bool
) -> tuple[list[Segment], bool]:
    """Return what follows ``prompt``, and whether it ends within thoughts.

    ``think``: the marks around thoughts, "" where there are none. ``thinking``: the prompt has
    opened them.
    """
    opening, closing = think
    segments = []
    if thoughts and opening:
        mark = "" if thinking else opening
        segments += [Segment(mark if prompt.endswith(f"{opening}\n") else f"{mark}\n", True)]
        segments += [Segment(thoughts, False)]
        thinking = True
    if content:
        if thinking:
            segments.append(Segment(f"\n{closing}\n\n", True))
        segments.append(Segment(content, False))
        thinking = False
    return segments, thinking
