"""The marks that models put around thoughts: which of them a chat template writes.

It knows templates' sources, no format.
"""

from __future__ import annotations

__all__ = ["marks_of"]

_KNOWN = (
    ("<think>", "</think>"),
    ("[THINK]", "[/THINK]"),
    ("<seed:think>", "</seed:think>"),
    ("<mm:think>", "</mm:think>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|inner_prefix|>", "<|inner_suffix|>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
)


def marks_of(template: str, usual: tuple[str, str]) -> tuple[str, str]:
    """Return the marks that a template writes; ``usual`` where it writes these, or none known."""
    if not usual[0] or usual[1] in template:
        return usual
    return next((pair for pair in _KNOWN if all(mark in template for mark in pair)), usual)
