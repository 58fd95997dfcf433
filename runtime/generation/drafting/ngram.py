"""Guesses from the text itself: what followed the last tokens when they stood there before.

Prompt lookup (Saxena 2023) with the longest match of several places. After a guess that was wrong
it goes on beside the place that it read from: text copied with a word changed is soon found again.
"""

from __future__ import annotations

from ggq.runtime.generation.drafting.base import Draft

__all__ = ["DRAFTER", "NGram"]

_SIZE = 3  # tokens that must have stood there before
_PLACES = 8  # of them the latest are compared ...
_LONGEST = 40  # ... as far back as this
_NEAR = 12  # tokens around where reading would go on
_STEPS = (3, 4, 5, 7, 10, 16, 32)  # least match of each grade but the first, which is `_beside`


class NGram:
    """The drafter; it holds nothing."""

    prior = (0.4, 0.35, 0.45, 0.55, 0.7, 0.8, 0.9, 0.95)
    thinks = False

    def start(self) -> _Lookup:
        """Return a guesser for a new answer."""
        return _Lookup()

    def close(self) -> None:
        """There is nothing to give back."""


DRAFTER = NGram


class _Lookup:
    """Where each run of ``_SIZE`` tokens stands, and the place that the last guess came from."""

    def __init__(self) -> None:
        self._latest: dict[tuple[int, ...], int] = {}  # run -> index behind its latest place
        self._earlier: list[int] = []  # by index: the one behind the run's place before, or 0
        self._offset: int | None = None  # from a token's index to that of what it was copied from

    def guess(self, ids: list[int], limit: int) -> Draft:
        """Return what followed the longest match, or what stands beside the last one."""
        start, length = self._match(ids)
        if not length:
            start = self._beside(ids)
            if not start:
                return Draft()
        self._offset = start - len(ids)
        tokens: list[int] = []
        for i in range(limit):  # beyond the end it repeats what it has guessed
            at = start + i
            tokens.append(ids[at] if at < len(ids) else tokens[at - len(ids)])
        return Draft(tokens, [_grade(length + i if length else 0) for i in range(limit)])

    def close(self) -> None:
        """There is nothing to give back."""

    def _match(self, ids: list[int]) -> tuple[int, int]:
        """Return (index behind it, length) of the longest earlier match of the end of ``ids``.

        The end itself is noted on the way, so that later calls find it.
        """
        earlier = self._earlier
        for end in range(len(earlier), len(ids) + 1):
            run = tuple(ids[max(0, end - _SIZE) : end])
            earlier.append(self._latest.get(run, 0) if end >= _SIZE else 0)
            if end >= _SIZE:
                self._latest[run] = end
        best, length, place = 0, 0, earlier[len(ids)]
        for _ in range(_PLACES):
            if not place:
                break
            found = _SIZE
            longest = min(place, _LONGEST)
            while found < longest and ids[place - 1 - found] == ids[-1 - found]:
                found += 1
            if found > length:
                best, length = place, found
            place = earlier[place]
        return best, length

    def _beside(self, ids: list[int]) -> int:
        """Return the index behind the last token's nearest copy to where reading would go on."""
        if self._offset is None:
            return 0
        expected = len(ids) + self._offset
        near = range(max(1, expected - _NEAR), min(len(ids) - 1, expected + _NEAR) + 1)
        found = [at for at in near if ids[at - 1] == ids[-1]]
        return min(found, key=lambda at: abs(at - expected), default=0)


def _grade(length: int) -> int:
    """Return the grade of a token behind a match of so many."""
    return sum(length >= step for step in _STEPS)
