"""Where pictures stand in a sequence, and how its tokens' positions follow from it (M-RoPE).

A picture's token has a time, a row and a column, which begin at the picture's own position; what
follows it goes on after the greatest of them (arXiv 2409.12191; transformers' get_rope_index).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

__all__ = ["FIRST", "LAST", "Pictured", "is_picture", "kept", "positions"]

FIRST, LAST = -(2**63), -(2**62)  # numbers of pictures' tokens, the last not among them


def is_picture(token: int) -> bool:
    """Return whether a number is that of a picture's token, not of one of a vocabulary."""
    return token < LAST


class Pictured(NamedTuple):
    """A picture's ``rows`` x ``columns`` tokens from token number ``start`` of a sequence on."""

    start: int
    rows: int
    columns: int

    @property
    def end(self) -> int:
        """The number of the first token after it."""
        return self.start + self.rows * self.columns

    @property
    def saved(self) -> int:
        """How much less what follows is further on than its number says."""
        return self.rows * self.columns - max(self.rows, self.columns)


def kept(pictured: tuple[Pictured, ...], length: int) -> tuple[Pictured, ...]:
    """Return the pictures that begin in the first ``length`` tokens."""
    return tuple(one for one in pictured if one.start < length)


def positions(pictured: tuple[Pictured, ...], start: int, n: int) -> np.ndarray:
    """Return the positions of ``n`` tokens from number ``start`` on, int64 (n,), or (n, 3).

    The three are time, row and column, where some of the tokens are a picture's.
    """
    numbers = np.arange(start, start + n)
    found = numbers.copy()
    for one in pictured:
        found[numbers >= one.end] -= one.saved
    places, inside = np.repeat(found[:, None], 3, axis=1), False
    for one in pictured:
        mine = (numbers >= one.start) & (numbers < one.end)
        if mine.any():
            inside, at = True, numbers[mine] - one.start
            first = one.start - sum(o.saved for o in pictured if o.end <= one.start)
            steps = np.stack([0 * at, at // one.columns, at % one.columns], axis=1)
            places[mine] = first + steps
    return places if inside else found
