"""Pictures in steps: their tokens' rows and positions, and where a prompt may be cut.

It joins what a gallery knows of tokens with what a model's layers do with them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from ggq.errors import UsageError
from ggq.models.hparams import HParams
from ggq.runtime.cache.kvcache import Sequence
from ggq.runtime.cache.pictured import Pictured, positions
from ggq.runtime.engine.backend import Glimpse, Part
from ggq.runtime.pictures.gallery import Block, Gallery

__all__ = ["Looker"]


class Looker:
    """Prepares the steps of one model that sees."""

    def __init__(self, hp: HParams, gallery: Gallery) -> None:
        """Take the model and its pictures."""
        self.gallery = gallery
        self._mutual = hp.mutual
        self._sections = hp.rope is not None and bool(hp.rope.sections)

    def prepared(self, part: Part) -> Part:
        """Return a part with its pictures' rows and all its positions; UsageError as a line.

        The sequence learns where pictures stand; whoever breaks a step off takes that back.
        """
        sequence, ids = part.sequence, part.ids
        start, glimpses = sequence.length, []
        self._check_whole(part)
        for first, n, block, inside in self._blocks(ids):
            begin = start + first - inside
            rows = self.gallery.rows(block)[:, inside : inside + n]
            span = (begin, begin + len(block)) if self._mutual else (0, 0)
            if self._mutual and inside + n < len(block):
                raise UsageError(f"a picture of {len(block)} tokens is not evaluated in parts")
            glimpses.append(Glimpse(first, rows, span))
            self._note(sequence, begin, block)
        places = None
        if sequence.pictured:
            places = positions(sequence.pictured, start, len(ids))
        if not glimpses:
            return replace(part, places=places)
        return replace(part, ids=np.maximum(ids, 0), pictures=tuple(glimpses), places=places)

    def cut(self, ids: np.ndarray, n: int, most: int) -> int:
        """Return how many of the next ``ids`` a step should take: about ``n``, at most ``most``.

        Where a picture's tokens see each other one step takes them all: no cut is inside.
        """
        n = min(n, len(ids))
        if not self._mutual or n == len(ids) or ids[n] >= 0 or ids[n - 1] >= 0:
            return n
        for first, length, _, _ in self._blocks(ids):
            if first < n < first + length:
                if first + length <= most:
                    return first + length
                if first:
                    return first
                raise UsageError(f"a picture of {length} tokens: a step takes {most} at most")
        return n

    def note(self, sequence: Sequence, ids: np.ndarray) -> None:
        """Tell a sequence that was read from disk which pictures its tokens ``ids`` are of."""
        for first, _, block, inside in self._blocks(ids[: sequence.length]):
            self._note(sequence, first - inside, block)

    def _note(self, sequence: Sequence, begin: int, block: Block) -> None:
        one = Pictured(begin, *block.grid)
        if self._sections and one not in sequence.pictured:
            sequence.pictured = (*sequence.pictured, one)

    def _blocks(self, ids: np.ndarray) -> Iterator[tuple[int, int, Block, int]]:
        """Yield (first, tokens, block, number in it of the first) of each run of its tokens."""
        places, at = np.flatnonzero(ids < 0), 0
        while len(places := places[places >= at]):
            first = int(places[0])
            block, inside = self.gallery.find(int(ids[first]))
            n = min(len(block) - inside, len(ids) - first)
            if (ids[first : first + n] != block.ids[inside : inside + n]).any():
                raise UsageError("a picture's tokens are all there, in their order, or none are")
            yield first, n, block, inside
            at = first + n

    def _check_whole(self, part: Part) -> None:
        """Refuse what goes on in the midst of a picture with something else."""
        at, sequence = part.sequence.length, part.sequence
        for one in sequence.pictured:
            if one.start < at < one.end and part.ids[0] >= 0:
                raise UsageError("a picture was cut off: go back to where it begins")
