"""What speculation goes by: how often guesses of each grade are right, and what steps take."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

__all__ = ["Costs", "Odds"]

_SLOWER = 0.1  # weight of a measurement above the mean: the machine may have been busy
_FASTER = 0.4  # and of one below it
_OUTLIER = 1.5  # what takes this times the expected counts as this much
# What steps of so many tokens take, for one token's time, before they were measured here.
_FIRST = ((1, 1.0), (2, 1.5), (3, 2.0), (4, 2.4), (8, 4.2), (16, 7.5), (32, 12.0), (256, 80.0))


class Odds:
    """Chances by grade: what is known before counts as ``weight`` tries, what was seen fades."""

    def __init__(self, prior: Callable[[int], float], weight: float, memory: float) -> None:
        """Take the chance of each grade before; ``memory``: tries that are remembered at most."""
        self._prior, self._weight, self._memory = prior, weight, memory
        self._seen: dict[int, tuple[float, float]] = {}  # grade -> tries, right ones

    def chance(self, grade: int) -> float:
        """Return the chance that a token of this grade is right."""
        tries, right = self._seen.get(grade, (0.0, 0.0))
        return (right + self._weight * self._prior(grade)) / (tries + self._weight)

    def learn(self, grade: int, right: bool) -> None:
        """Count a guess."""
        tries, hits = self._seen.get(grade, (0.0, 0.0))
        keep = min(1.0, self._memory / (tries + 1))
        self._seen[grade] = (tries * keep + 1, hits * keep + right)

    def fade(self, share: float) -> None:
        """Make all that was seen weigh ``share`` of what it does."""
        self._seen = {g: (tries * share, hits * share) for g, (tries, hits) in self._seen.items()}


class Costs:
    """Seconds of a step by the number of its tokens, learned as steps are done."""

    def __init__(self) -> None:
        """Know nothing yet but how steps usually grow."""
        self._seconds: dict[int, float] = {}

    def learn(self, n_tokens: int, seconds: float) -> None:
        """Count a step."""
        known = self._seconds.get(n_tokens, seconds)
        weight = _SLOWER if seconds > known else _FASTER
        self._seconds[n_tokens] = known + weight * (min(seconds, _OUTLIER * known) - known)

    def seconds(self, n_tokens: int) -> float:
        """Return what a step of ``n_tokens`` takes; 0.0 before any was measured."""
        if not self._seconds:
            return 0.0
        near = min(self._seconds, key=lambda n: (abs(n - n_tokens), n))
        return self._seconds[near] * _usual(n_tokens) / _usual(near)


def _usual(n_tokens: int) -> float:
    """Return what a step usually takes in single tokens' time."""
    for (n, at), (m, end) in pairwise(_FIRST):
        if n_tokens <= m:
            return at + (end - at) * (n_tokens - n) / (m - n)
    return _FIRST[-1][1]
