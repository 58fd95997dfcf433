"""The pictures of one model: what of a prompt each is, and what its projector makes of it.

A picture's tokens have numbers of their own below those of any vocabulary, made of a hash of the
file, the projector and the view. So whoever compares tokens compares pictures: caches in memory and
on disk know a picture by its numbers, and a conversation about it goes on where it was. A picture
is looked at when one of its tokens is evaluated first.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from hashlib import shake_128
from typing import Any, Protocol
from weakref import WeakSet

import numpy as np

from ggq.errors import ModelError, UsageError, option
from ggq.runtime.cache.pictured import FIRST, LAST
from ggq.runtime.pictures.families import family_of
from ggq.runtime.pictures.opening import Picture
from ggq.runtime.pictures.plans import View, pixels

__all__ = ["Block", "Gallery", "Shown"]

_MOST_ROWS = 512 << 20  # bytes of rows that are kept
_MOST_FILES = 128 << 20  # bytes of picture files that are kept
_MOST_SHOWN = 64


class Eyes(Protocol):
    """What looks at prepared pixels (ggq.runtime.engine.eyes.Eyes)."""

    sight: Any

    @property
    def n_text(self) -> int:
        """Columns of a row."""

    @property
    def nbytes(self) -> int:
        """Bytes of the weights."""

    @property
    def identity(self) -> str:
        """What changes with the file."""

    def encode(self, pixels: np.ndarray, progress: Callable[[float], None] | None = None) -> Any:
        """Return what it sees in one view: ``rows``, ``deepstack`` and ``grid``."""

    def close(self) -> None:
        """Give back threads and memory."""


class Block:
    """Tokens of a view that stand together: their numbers, int64 (n,), and their grid.

    ``view``: which of the picture's; ``first``: which of the view's rows is the first one.
    """

    def __init__(
        self, shown: Shown, view: int, first: int, ids: np.ndarray, grid: tuple[int, int]
    ) -> None:
        self.shown, self.view, self.first, self.ids, self.grid = shown, view, first, ids, grid

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(eq=False)
class Shown:
    """A picture as it stands in a prompt: the model's own texts, and blocks of its tokens."""

    picture: Picture
    pieces: list[str | Block]

    @property
    def n_tokens(self) -> int:
        """How many tokens its views are, without the texts around them."""
        return sum(len(piece) for piece in self.pieces if isinstance(piece, Block))


class Gallery:
    """Pictures of one model with ``eyes``; any thread may ask.

    ``n_embd`` and ``deepstack``: what the text model takes, ModelError where the eyes give other
    rows. ``scale``: what the text model multiplies its own rows by, and pictures' not.
    ``progress``: called with the share of a picture that has been looked at.
    """

    def __init__(self, eyes: Eyes, n_embd: int, deepstack: int = 0, scale: float | None = None):
        found = len(eyes.sight.deepstack)
        if eyes.n_text != n_embd or found != deepstack:
            raise ModelError(
                f"the projector gives rows of {eyes.n_text} for {found + 1} layers, the model takes"
                f" {n_embd} for {deepstack + 1}: it is another model's"
            )
        self.eyes, self.family = eyes, family_of(eyes.sight.projector)
        self.progress: Callable[[float], None] | None = None
        self.n_ctx: int | None = None  # tokens of a prompt at most, where it is known
        self._scale = scale or 1.0
        self._shown: OrderedDict[bytes, Shown] = OrderedDict()
        self._rows: OrderedDict[int, np.ndarray] = OrderedDict()  # by a block's first number
        self._blocks: WeakSet[Block] = WeakSet()
        self._lock, self._looking = threading.Lock(), threading.Lock()

    def show(self, picture: Picture) -> Shown:
        """Return what stands in prompts for a picture."""
        with self._lock:
            if picture.digest in self._shown:
                self._shown.move_to_end(picture.digest)
                return self._shown[picture.digest]
        sight = self.eyes.sight
        plan = self.family.plan(sight, picture.height, picture.width)
        shown, n_views = Shown(picture, []), 0
        for piece in plan:
            if isinstance(piece, str):
                shown.pieces.append(piece)
            else:
                shown.pieces += self._blocks_of(shown, n_views, piece)
                n_views += 1
        with self._lock:
            self._shown[picture.digest] = shown
            self._blocks.update(p for p in shown.pieces if isinstance(p, Block))
            while len(self._shown) > 1 and (
                len(self._shown) > _MOST_SHOWN
                or sum(len(s.picture.data) for s in self._shown.values()) > _MOST_FILES
            ):
                self._shown.popitem(last=False)
        return shown

    def check_room(self, pictures: Iterable[Picture]) -> int:
        """Return how many tokens pictures are; UsageError where they alone fill the context."""
        n = sum(self.show(picture).n_tokens for picture in pictures)
        if self.n_ctx is not None and n >= self.n_ctx:
            ways = f"take a smaller one or raise the context size ({option('--ctx', 'n_ctx')})"
            raise UsageError(f"{n} tokens of pictures, a context of {self.n_ctx}: {ways}")
        return n

    def _blocks_of(self, shown: Shown, number: int, view: View) -> list[str | Block]:
        """Return a view's tokens in one block, or a block for each row with text between them."""
        rows, columns = self.eyes.sight.grid(*view.size)
        n = self.eyes.sight.tokens(*view.size)
        ids = self._numbers(shown.picture, number, n)
        if not view.between:
            return [Block(shown, number, 0, ids, (rows, columns))]
        found = list[str | Block]()
        for first in range(0, n, columns):
            part = ids[first : first + columns]
            found += [Block(shown, number, first, part, (1, columns)), view.between]
        return found[:-1]

    def _numbers(self, picture: Picture, view: int, n: int) -> np.ndarray:
        """Return the numbers of a view's tokens: 62 bits of a hash each."""
        seed = b"%s %d %s" % (self.eyes.identity.encode(), view, picture.digest)
        drawn = np.frombuffer(shake_128(seed).digest(8 * n), "<i8")
        return FIRST + (drawn & (LAST - FIRST - 1))

    def close(self) -> None:
        """Give back what the eyes hold."""
        self.eyes.close()

    def find(self, number: int) -> tuple[Block, int]:
        """Return the block that a token is of, and which of its tokens; UsageError if unknown."""
        with self._lock:
            for block in self._blocks:
                at = np.flatnonzero(block.ids == number)
                if len(at):
                    return block, int(at[0])
        raise UsageError("a picture of this prompt is no longer in memory: send it again")

    def within(self, ids: np.ndarray) -> list[Block]:
        """Return the blocks that some of ``ids`` are of."""
        found, at = list[Block](), 0
        places = np.flatnonzero(ids < 0)
        while len(places := places[places >= at]):
            block, first = self.find(int(ids[places[0]]))
            found.append(block)
            at = int(places[0]) + len(block) - first
        return found

    def is_seen(self, block: Block) -> bool:
        """Return whether `rows` has nothing left to do but to hand them out."""
        with self._lock:
            return int(block.ids[0]) in self._rows

    def rows(self, block: Block) -> np.ndarray:
        """Return a block's rows, float32 (1 + deepstack, n, n_embd); it may have to look first."""
        key = int(block.ids[0])
        with self._looking:
            with self._lock:
                if key in self._rows:
                    self._rows.move_to_end(key)
                    return self._rows[key]
            self._look(block.shown)
            with self._lock:
                return self._rows[key]

    def _look(self, shown: Shown) -> None:
        """Make the rows of all views of a picture."""
        picture, sight = shown.picture, self.eyes.sight
        plan = self.family.plan(sight, picture.height, picture.width)
        blocks = [piece for piece in shown.pieces if isinstance(piece, Block)]
        views = pixels(picture.rgb(), plan, self.family, sight)
        found: dict[int, np.ndarray] = {}
        for i, view in enumerate(views):
            seen = self.eyes.encode(view, self._told(i, len(views)))
            first = np.asarray(seen.rows, np.float32)[None] / np.float32(self._scale)
            deep = np.asarray(seen.deepstack, np.float32).reshape(-1, *first.shape[1:])
            rows, mine = np.concatenate([first, deep]), [b for b in blocks if b.view == i]
            if rows.shape[1] != (n := sum(map(len, mine))):
                raise ModelError(f"the projector made {rows.shape[1]} rows of a picture, not {n}")
            for block in mine:
                found[int(block.ids[0])] = rows[:, block.first : block.first + len(block)]
        with self._lock:
            self._rows |= found
            while len(self._rows) > len(found) and (
                sum(rows.nbytes for rows in self._rows.values()) > _MOST_ROWS
            ):
                self._rows.popitem(last=False)

    def _told(self, i: int, n: int) -> Callable[[float], None] | None:
        told = self.progress
        return None if told is None else lambda share: told((i + share) / n)
