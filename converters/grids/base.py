"""What a grid of a serving engine is, how its activations are rounded, and what a layout writes.

A grid is a `BlockType` whose scales are stored apart from the codes, so that passes work on it.
It knows no checkpoint; a layout knows one module's tensors and no model.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import numpy as np

from ggq import quants
from ggq.quants.base import BlockType, Params

__all__ = ["GROUP_SIZES", "Grid", "Inputs", "Layout", "ServingType", "Weight"]

GROUP_SIZES = (32, 64, 128)
Arrays = dict[str, np.ndarray]
Shapes = dict[str, tuple[str, tuple[int, ...]]]  # dtype as safetensors has it, shape


class Grid(BlockType):
    """Codes of ``bits``; ``group`` weights, perhaps a whole row, share a scale of dtype ``scales``.

    A row's bytes: codes lowest bits first, then the scales, then ``extra`` bytes of each group.
    Its name says all three: INT4-G128-BF16. What a kind declares: ``CODES``, the bits of each of
    its codes by name; ``SYMMETRIC``, whether all groups have their zero at the same code;
    ``FLOATS``, whether values lie as floats do; ``BLOCKS``, the types of ggml whose blocks hold
    the very codes and scales, by codes and group.
    """

    CODES: ClassVar[Mapping[str, int]] = {}
    SYMMETRIC: ClassVar[bool] = True
    FLOATS: ClassVar[bool] = False
    BLOCKS: ClassVar[Mapping[tuple[str, int], str]] = {}
    ggml_id = -1
    bits: int
    levels: int
    extra = 0  # further bytes of each group

    def __init__(self, codes: str, group: int, scales: str) -> None:
        self.codes, self.group, self.scales = codes, group, scales
        self.name = f"{codes}-G{group}-{scales}"
        self.scale_bytes = {"F32": 4}.get(scales, 2)
        self.bits = self.CODES[codes]
        self.levels = 1 << self.bits
        self.block_size = group
        self.block_bytes = group * self.bits // 8 + self.scale_bytes + self.extra

    def per_weight(self, values: np.ndarray) -> np.ndarray:
        """Return values per group, (rows, groups), repeated for each weight."""
        return np.repeat(values, self.group, axis=1)

    def stored_scales(self, d: np.ndarray) -> np.ndarray:
        """Return scales as their bytes, uint8 (rows, groups * bytes)."""
        made = quants.get(self.scales).quantize(np.ascontiguousarray(d, np.float32))
        return made.view(np.uint8).reshape(len(d), -1)

    def rounded_scales(self, d: np.ndarray) -> np.ndarray:
        """Return scales as the dtype holds them, float32."""
        return quants.get(self.scales).dequantize(self.stored_scales(d)).reshape(d.shape)

    def split(self, blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the bytes of the codes, the float32 scales (rows, groups) and the extra bytes."""
        groups = blocks.shape[1] // self.block_bytes
        first = groups * self.group * self.bits // 8
        last = first + groups * self.scale_bytes
        scales = np.ascontiguousarray(blocks[:, first:last])
        return blocks[:, :first], quants.get(self.scales).dequantize(scales), blocks[:, last:]

    def dequantize(self, blocks: np.ndarray) -> np.ndarray:
        return self.decode(*self.unpack(blocks))

    @property
    def same_blocks(self) -> str | None:
        """The type of ggml whose blocks hold these codes and scales; None: there is none."""
        return self.BLOCKS.get((self.codes, self.group))

    @abstractmethod
    def zeros(self, params: Params) -> np.ndarray | None:
        """Return the code of zero of each group, uint8; None where it is the same everywhere."""


@dataclass(frozen=True)
class Inputs:
    """How a type's engine rounds the activations before a product.

    ``scope``: "block" (32 columns share a scale: ggq's own kernels), "token", "tensor" (one scale
    known before) or "none"; ``top``: the largest code; ``floats``: E4M3 in the place of integers.
    """

    scope: str = "block"
    top: float = 127.0
    floats: bool = False

    def rounded(self, x: np.ndarray, peak: float) -> np.ndarray:
        """Return ``x`` (rows, n) float32 as it comes back; ``peak``: the most of all tokens."""
        if self.scope == "none":
            return x
        blocks = x.reshape(len(x), -1, 32) if self.scope == "block" else x[:, None]
        most: Any = np.abs(blocks).max(-1, keepdims=True) if self.scope != "tensor" else peak
        scale = np.where(most == 0, 1, most).astype(np.float32) / np.float32(self.top)
        codes = np.clip(blocks / scale, -self.top, self.top)
        codes = _nearest_e4m3(codes) if self.floats else np.rint(codes)
        return (codes * scale).reshape(x.shape).astype(np.float32)


def _nearest_e4m3(x: np.ndarray) -> np.ndarray:
    from ggq.converters.grids.kinds.e4m3 import nearest

    return nearest(x)


@dataclass(frozen=True)
class Weight:
    """One module's matrix: codes uint8 (rows, n), scales float32 and zeros uint8 (rows, groups).

    ``zeros`` None: the middle of the codes. ``input_scale``: of the activations, where static.
    """

    grid: Grid
    codes: np.ndarray
    scales: np.ndarray
    zeros: np.ndarray | None = None
    input_scale: float | None = None


class Layout(Protocol):
    """How a module's weight lies in the checkpoint, and what config.json says of all of them."""

    def shapes(self, grid: Grid, rows: int, n: int, static: bool) -> Shapes:
        """Return dtype and shape of each tensor by what follows the module's name."""

    def tensors(self, weight: Weight) -> Arrays:
        """Return the tensors of `shapes`, as numpy stores them."""

    def config(self, chosen: ServingType, group: int, left: Sequence[str]) -> dict[str, Any]:
        """Return ``quantization_config``; ``left``: modules that stay as they are."""

    def problem(self, rows: int, n: int) -> str | None:
        """Return why a matrix has no place in the layout; None: it has."""


@dataclass(frozen=True)
class ServingType:
    """What ``--type`` may name: a grid, a layout, the activations that the engine rounds.

    ``grouped``: a scale for each group of a row, else one a row. ``dtype``: of scales and all other
    tensors where the layout's engines know one only; None: the model's own.
    """

    name: str
    codes: str
    layout: Layout
    about: str
    grouped: bool = True
    inputs: Inputs = field(default_factory=lambda: Inputs("none"))
    dtype: str | None = None

    @property
    def kind(self) -> type[Grid]:
        """The kind of grid that has such codes."""
        from ggq.converters import grids

        return grids.kinds_of_codes()[self.codes]

    @property
    def bits(self) -> int:
        """Bits of a weight's code."""
        return self.kind.CODES[self.codes]

    @property
    def static(self) -> bool:
        """Whether the activations' scale is stored beside each weight."""
        return self.inputs.scope == "tensor"


def stored(values: np.ndarray, dtype: str) -> np.ndarray:
    """Return float32 values as numpy stores a safetensors dtype: F32, F16 or BF16 (uint16)."""
    made = quants.get(dtype).quantize(np.ascontiguousarray(values, np.float32).reshape(1, -1))
    kinds: Mapping[str, str] = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}
    return made.view(np.uint8).reshape(-1).view(kinds[dtype]).reshape(values.shape)
