"""How much of the waiting prompts a step may take, so that running answers keep flowing.

It learns what steps take: those of answers alone, and what prompt tokens add, near the beginning of
a context and far into it. It knows no engine.
"""

from __future__ import annotations

__all__ = ["Pace"]

_RATIO = 2.25  # a step with prompts shall take this times one without
_LEAST = 8  # prompt tokens that are always worth a step
_FIRST = 16  # prompt tokens before anything is known of their cost
_SMOOTH = 0.2  # weight of the newest measurement in running means
_OUTLIER = 4.0  # what takes this times the expected counts as this much: the machine was busy
_REFRESH = 64  # steps with prompts after which one without is due
_FADE = 0.95  # what an older measurement weighs in the cost of prompts, for each newer one
_RIDGE = 1e-3  # keeps the cost of the position at 0 until different positions were seen
_POSITIONS = 1024.0  # unit of positions: makes both costs alike


class Pace:
    """Measures steps; says how many prompt tokens the next one may take."""

    def __init__(self, batch: int):
        """Take the most tokens of a step."""
        self._batch = batch
        self._alone: dict[int, float] = {}  # seconds of a step by the number of its answers
        self._since: dict[int, int] = {}  # steps with prompts since that was measured
        self._last = _FIRST  # prompt tokens of the last step with answers
        # normal equations of: seconds added = cost * tokens + slope * (sum of positions)
        self._nn = self._ns = self._ss = self._ne = self._se = 0.0

    def budget(self, n_answers: int, depth: float) -> int:
        """Return the prompt tokens that a step may take.

        ``depth`` is the mean position of the prompts. 0: the answers shall be measured alone.
        """
        room = self._batch - n_answers
        if not n_answers:
            return room
        if n_answers not in self._alone or self._since[n_answers] >= _REFRESH:
            return 0
        if not self._nn:
            return min(room, _FIRST)
        cost, slope = self._costs()
        extra = (_RATIO - 1) * self._alone[n_answers]
        fits = int(extra / (cost + slope * depth / _POSITIONS))
        return min(room, max(_LEAST, min(fits, 2 * self._last)))  # no leaps on a first impression

    def answers(self, n_answers: int, seconds: float) -> None:
        """Learn from a step of answers alone."""
        known = self._alone.get(n_answers, seconds)
        if seconds < known / _OUTLIER:  # what was known was a first step or a busy machine
            known = seconds
        seconds = min(seconds, _OUTLIER * known)
        self._alone[n_answers] = known + _SMOOTH * (seconds - known)
        self._since[n_answers] = 0

    def mixed(self, n_answers: int, n_prompt: int, positions: float, seconds: float) -> None:
        """Learn from a step with ``n_prompt`` prompt tokens; ``positions`` is the sum of theirs."""
        if n_answers not in self._alone:
            return
        self._since[n_answers] += 1
        self._last = n_prompt
        n, s = float(n_prompt), positions / _POSITIONS
        extra = max(seconds - self._alone[n_answers], 0.01 * seconds)
        if self._nn:
            cost, slope = self._costs()
            extra = min(extra, _OUTLIER * (cost * n + slope * s))
        for name, value in (("nn", n * n), ("ns", n * s), ("ss", s * s),
                            ("ne", n * extra), ("se", s * extra)):  # fmt: skip
            setattr(self, f"_{name}", _FADE * getattr(self, f"_{name}") + value)

    def _costs(self) -> tuple[float, float]:
        """Return seconds per token and per token and unit of its position."""
        ss = self._ss + _RIDGE * self._nn
        bottom = self._nn * ss - self._ns**2
        slope = max((self._nn * self._se - self._ns * self._ne) / bottom, 0.0)
        cost = (self._ne - slope * self._ns) / self._nn
        if cost <= 0.1 * self._ne / self._nn:  # all at one depth: it cannot be told apart
            cost = 0.1 * self._ne / self._nn
            slope = 0.9 * self._ne / self._ns if self._ns else 0.0
        return cost, slope
