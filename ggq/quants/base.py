"""What a block type is: its layout, how rows become blocks and back, and the kernels that read it.

``quantize = pack(encode(fit))``: *fit* chooses scales, *encode* chooses codes, *pack* makes bytes;
a pre-pass may replace any of the three. It knows no type by name and nothing about files or models.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from ggq.errors import UsageError

Params = dict[str, np.ndarray]


@dataclass(frozen=True)
class Grid:
    """The values a row can take once its scales are fixed: ``scale * code - offset``.

    ``scale`` and ``offset`` are float32 of shape (rows, n), ``levels`` is the number of codes
    (0 .. levels-1).
    """

    scale: np.ndarray
    offset: np.ndarray
    levels: int

    def nearest(self, x: np.ndarray) -> np.ndarray:
        """Return the codes, uint8 (rows, n), whose values are nearest to ``x``."""
        safe = np.where(self.scale == 0, np.float32(1), self.scale)
        codes = np.rint((x + self.offset) / safe)
        found: np.ndarray = np.clip(codes, 0, self.levels - 1).astype(np.uint8)
        return found

    def values(self, codes: np.ndarray) -> np.ndarray:
        """Return the float32 values of ``codes``."""
        found: np.ndarray = self.scale * codes.astype(np.float32) - self.offset
        return found


class QuantType(ABC):
    """One block type of GGUF: ``block_size`` weights in ``block_bytes`` bytes.

    Arrays are row-major: weights float32 (rows, n), blocks uint8 (rows, row_bytes(n)), importance
    float32 (n,) or None. ``n`` is a multiple of ``block_size``.
    """

    name: str
    ggml_id: int
    block_size: int
    block_bytes: int
    needs_importance = False  # whether there is no encoder without

    # How files use the type; ggq.quants.mixtures, target sizes and reports go by it.
    file_type: int | None = None  # general.file_type of the file type of its name, where it is one
    recommended = False  # whether `ggq recommend` may name that file type
    fallback: str | None = None  # for rows that its blocks do not fill evenly, before F16
    better: str | None = None  # the next one to try for a tensor that it harms
    candidate_for: tuple[int, ...] = ()  # of a target size: for rows that are multiples of these
    wants_importance = False  # whether its blocks are of little use without
    heeds_importance = True  # whether its search goes by importance at all

    def row_bytes(self, n: int) -> int:
        """Return the bytes of a row of ``n`` weights."""
        if n % self.block_size:
            raise UsageError(f"{self.name}: {n} is not a multiple of {self.block_size}")
        return n // self.block_size * self.block_bytes

    @property
    def bits_per_weight(self) -> float:
        """Return the bits that a weight takes, scales included."""
        return 8 * self.block_bytes / self.block_size

    @abstractmethod
    def dequantize(self, blocks: np.ndarray) -> np.ndarray:
        """Return the float32 (rows, n) values of blocks, bit-exact with ggml's dequantize_row."""

    @abstractmethod
    def quantize(self, x: np.ndarray, importance: np.ndarray | None = None) -> np.ndarray:
        """Return the blocks that ggml's quantize_chunk would write, byte for byte."""

    def matmul(self) -> "Kernels":
        """Return the kernels for this type's rows: ggq.quants.kernels' file of its name."""
        try:
            module = import_module(f"ggq.quants.kernels.{self.name.lower()}")
        except ModuleNotFoundError:
            raise UsageError(f"{self.name}: ggq has no matmul kernels for this type") from None
        found: Kernels = module.KERNELS
        return found

    def __repr__(self) -> str:
        return f"<{self.name}>"


class ValuesType(QuantType):
    """A type whose blocks are read at once: its codes name several weights each."""

    @abstractmethod
    def values(self, blocks: np.ndarray) -> np.ndarray:
        """Return the float32 values in any shape whose order is that of the rows."""

    def dequantize(self, blocks: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            return self.values(blocks).reshape(len(blocks), -1)


class BlockType(QuantType):
    """A block type with codes and scales: what the pre-passes can steer."""

    @abstractmethod
    def fit(self, x: np.ndarray, importance: np.ndarray | None = None) -> Params:
        """Choose scales for float32 (rows, n); the result may hold provisional codes as well."""

    @abstractmethod
    def encode(self, x: np.ndarray, params: Params) -> np.ndarray:
        """Choose codes, uint8 (rows, n), for the scales in ``params``."""

    @abstractmethod
    def pack(self, params: Params, codes: np.ndarray) -> np.ndarray:
        """Return blocks from scales and codes."""

    @abstractmethod
    def unpack(self, blocks: np.ndarray) -> tuple[Params, np.ndarray]:
        """Return the scales and codes of blocks; ``pack`` inverts it."""

    @abstractmethod
    def grid(self, params: Params) -> Grid:
        """Return the values that each weight can take under ``params``."""

    def decode(self, params: Params, codes: np.ndarray) -> np.ndarray:
        """Return float32 (rows, n) values from scales and codes."""
        return self.grid(params).values(codes)

    def quantize(self, x: np.ndarray, importance: np.ndarray | None = None) -> np.ndarray:
        """Return pack(encode(fit)): the blocks that ggml would write, byte for byte."""
        params = self.fit(x, importance)
        return self.pack(params, self.encode(x, params))


@dataclass(frozen=True)
class Kernels:
    """The kernels of a type, compiled when asked for, and how they take activations.

    ``decode``: dot products on native blocks for up to a handful of tokens; ``prefill``: a tile
    unpacked once and used for all tokens; ``dequantize`` reads rows by number. All take the
    arguments of kernels/abi.py; ``activations`` is "f32" or "q8". ``sums``, where there are sums of
    integers: the largest code, whether the minimum is a code, how many scales 32 columns have.
    """

    decode: Any  # ggq.machine_code.Function
    prefill: Any
    dequantize: Any
    activations: str
    sums: tuple[int, bool, int] | None = None
