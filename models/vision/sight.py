"""What a vision tower's file says: sizes, preprocessing, and how a picture lies in patches.

It knows no file, no key names and no tower.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ggq.errors import ModelError, UsageError
from ggq.models.layers.attention import Attention
from ggq.models.layers.base import Layer

__all__ = ["MAX_PATCHES", "Sight", "View"]

MAX_PATCHES = 65_536  # of a view: attention sees them all at once
_MOST_PIXELS = 1 << 24  # of a view: as many patches of 16 x 16
_MOST_TILES, _TILES_OF_AN_EDGE = 256, 32
_MOST_COLUMNS = 512  # of a head
_LEAST_STD, _MOST_MEAN = 1e-6, 1e6
Array = np.ndarray


@dataclass(frozen=True)
class Sight:
    """One tower. Lengths of pictures are in pixels, ``merge`` in patches of a token's side.

    ``n_text``: columns of the text model's rows. ``image_size``: the side of the square that
    towers of one size take. ``mean``, ``std``: what pixels from 0 to 1 are normalised by.
    ``deepstack``: layers whose output the text model's first layers get, too. ``sizes``: dimensions
    that the tensors' shapes name and no key says. The other settings are those of preprocessing,
    None where the file does not say them.
    """

    projector: str
    n_text: int
    n_embd: int
    n_ff: int
    n_layer: int
    n_head: int
    eps: float
    patch: int
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    merge: int = 1
    activation: str = "gelu_quick"
    windowed: int = 0  # all layers but each of that number see their window alone; 0: all see all
    deepstack: tuple[int, ...] = ()
    breaks: bool = False  # a row of its own stands between two rows of tokens
    sizes: Mapping[str, int] = field(default_factory=dict)
    min_pixels: int | None = None
    max_pixels: int | None = None
    longest_edge: int | None = None
    min_tiles: int | None = None
    max_tiles: int | None = None

    @property
    def head_dim(self) -> int:
        """Columns of a head."""
        return self.sizes.get("head") or self.n_embd // self.n_head

    @property
    def multiple(self) -> int:
        """What height and width of a view must be multiples of."""
        return self.patch * self.merge

    @property
    def attention(self) -> Attention:
        """What the operation of attention reads of each layer's heads."""
        n, d = self.n_head, self.head_dim
        return Attention(n, n, d, d, float(d) ** -0.5, causal=False)

    @property
    def blocks(self) -> tuple[Layer, ...]:
        """The layers' heads, for those who permute or cut their weights."""
        return (Layer(self.attention),) * self.n_layer

    def dim(self, name: str, layer: int | None = None) -> int:
        """Return the size of a dimension of a tensor, "3*a" thrice that of "a"."""
        if name.isdigit():
            return int(name)
        factor, times, rest = name.partition("*")
        if times:
            return self.dim(factor) * self.dim(rest)
        known = {
            "embd": self.n_embd,
            "text": self.n_text,
            "patch": self.patch,
            "area": self.merge**2,
            "head": self.head_dim,
            "q": self.n_head * self.head_dim,
            "ff": self.n_ff,
        }
        return self.sizes.get(name) or known.get(name, 0)

    def view(self, height: int, width: int) -> View:
        """Return how a picture of that size lies in patches; UsageError where it does not fit.

        Of the square that a tower takes, what is no whole patch at its ends is not seen, as a
        convolution leaves it out: SmolVLM's 384 pixels are 27 patches of 14.
        """
        side, square = self.multiple, (self.image_size, self.image_size)
        rows, columns = height // self.patch, width // self.patch
        whole = (height, width) == square or not (height % self.patch or width % self.patch)
        if not whole or not rows or not columns or rows % self.merge or columns % self.merge:
            what = (
                f"a view of {width} x {height} pixels: {self.projector} takes multiples of {side}"
            )
            raise UsageError(what)
        if height * width > MAX_PATCHES * self.patch**2:
            raise UsageError(f"a view of {width} x {height} pixels is above {MAX_PATCHES} patches")
        if height * width > _MOST_PIXELS:
            raise UsageError(f"a view of {width} x {height} pixels: at most {_MOST_PIXELS} of them")
        return View(rows, columns)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Return the rows and columns of tokens of a view of that size."""
        view = self.view(height, width)
        return view.rows // self.merge, view.columns // self.merge

    def tokens(self, height: int, width: int) -> int:
        """Return how many rows the text model gets of a view of that size."""
        rows, columns = self.grid(height, width)
        return rows * columns + (rows - 1 if self.breaks else 0)

    def check(self) -> None:
        """Raise ModelError where the sizes cannot be those of a tower."""
        sizes = {
            "block count": self.n_layer,
            "embedding length": self.n_embd,
            "head count": self.n_head,
            "projection dimension": self.n_text,
            "patch size": self.patch,
            "scale factor": self.merge,
            "image size": self.image_size,
        }
        for what, value in sizes.items():
            if not 0 < value <= 1 << 20:
                raise ModelError(f"{self.projector}: {what} is {value}")
        if self.n_layer > 512 or self.multiple > 4096:
            what = f"{self.n_layer} layers, tokens of {self.multiple} pixels"
            raise ModelError(f"{self.projector}: {what} are no tower's")
        if "head" not in self.sizes and self.n_embd % self.n_head:
            what = f"{self.n_head} heads do not divide {self.n_embd} columns"
            raise ModelError(f"{self.projector}: {what}")
        if self.head_dim > _MOST_COLUMNS:
            what = f"heads of {self.head_dim} columns, {_MOST_COLUMNS} at most"
            raise ModelError(f"{self.projector}: {what}")
        if not self.eps > 0:
            raise ModelError(f"{self.projector}: norm epsilon is {self.eps}")
        if any(not 0 <= i < self.n_layer for i in self.deepstack):
            raise ModelError(f"{self.projector}: layers {self.deepstack} of {self.n_layer}")
        self._check_preparation()

    def _check_preparation(self) -> None:
        """Raise ModelError where no picture can be made ready by these numbers."""
        colours = len(self.mean) == len(self.std) == 3
        if not colours or not all(
            abs(m) <= _MOST_MEAN and _LEAST_STD <= s <= _MOST_MEAN
            for m, s in zip(self.mean, self.std, strict=True)
        ):
            raise ModelError(
                f"{self.projector}: mean {self.mean}, deviation {self.std} of 3 colours"
            )
        tiles, edge = self.max_tiles or 0, self.longest_edge or 0
        if max(tiles, self.min_tiles or 0) > _MOST_TILES:
            raise ModelError(f"{self.projector}: a picture of {tiles} tiles, {_MOST_TILES} at most")
        if edge > _TILES_OF_AN_EDGE * self.image_size:
            what = f"edges of {edge} pixels in tiles of {self.image_size}"
            raise ModelError(f"{self.projector}: {what}: too many")


@dataclass(frozen=True)
class View:
    """A picture of ``rows`` x ``columns`` patches, numbered row by row."""

    rows: int
    columns: int

    @property
    def n(self) -> int:
        return self.rows * self.columns

    @property
    def places(self) -> tuple[Array, Array]:
        """The row and the column of each patch, int64 (n,) each."""
        row, column = np.divmod(np.arange(self.n), self.columns)
        return row, column

    def tiles(self, height: int, width: int) -> list[Array]:
        """Return the patches of each tile of that size, row by row; those at the ends are cut."""
        number = np.arange(self.n).reshape(self.rows, self.columns)
        return [
            number[y : y + height, x : x + width].ravel()
            for y in range(0, self.rows, height)
            for x in range(0, self.columns, width)
        ]

    def tokens(self, merge: int) -> Array:
        """Return the patches of each token, int64 (tokens, merge**2), row by row in both."""
        return np.stack(self.tiles(merge, merge))
