"""What a model makes of a text that is given: the log-probability of each of its tokens.

It knows neither requests nor HTTP.
"""

from __future__ import annotations

from collections.abc import Sequence

from ggq.runtime.batching.scheduler import Scheduler
from ggq.runtime.generation.answer import Logprobs, token_logprobs

__all__ = ["prompt_logprobs"]

_ROWS = 64  # logits of so many tokens at once: a vocabulary of 250,000 takes 64 MB


def prompt_logprobs(
    scheduler: Scheduler, ids: Sequence[int], count: int, mix: tuple[float, ...] | None = None
) -> list[Logprobs | None]:
    """Return an entry per token, with the ``count`` likeliest; the first has nothing before it.

    ``mix``: the scales of the adapters, None for the engine's. What was evaluated is kept: an
    answer to the same prompt goes on from it.
    """
    found: list[Logprobs | None] = [None]
    engine = scheduler.engine
    sequence = engine.sequence(mix)
    try:
        for start in range(0, len(ids) - 1, _ROWS):
            part = ids[start : min(start + _ROWS, len(ids) - 1)]
            rows = engine.evaluate(sequence, part, every=True)
            found += [token_logprobs(row, ids[start + i + 1], count) for i, row in enumerate(rows)]
    except BaseException:
        sequence.free()
        raise
    scheduler.keep(ids[: len(ids) - 1], sequence)
    return found
