"""What the searched block types share: values are ``scale * code - offset`` with scales per group.

A type names its layout, its groups and its compiled search; it knows no other type.
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np

from ggq.quants.base import BlockType, Grid, Params
from ggq.quants.packing import (
    join_blocks,
    join_planes,
    nearest_int,
    split_planes,
    split_scales_and_mins,
    view_blocks,
)


class SearchedType(BlockType):
    """A block type whose ``group`` neighbouring weights share a scale and perhaps an offset.

    ``zero`` is the code of the value zero where there is no offset; ``keeps_codes`` tells that ggml
    writes the search's own codes, while the other types take them again from the rounded scales.
    """

    group: int
    levels: int
    zero = 0
    keeps_codes = False
    combine: Callable[..., Any] = staticmethod(np.subtract)  # of scale * code and offset
    layout: np.dtype

    def scales(self, params: Params) -> tuple[np.ndarray, np.ndarray | None]:
        """Return scale and offset per group, float32 (rows, groups); offset None without one."""
        return params["d"].astype(np.float32), None

    @abstractmethod
    def quantize(self, x: np.ndarray, importance: np.ndarray | None = None) -> np.ndarray:
        """Return the blocks that ggml's quantize_chunk would write, byte for byte.

        ``importance`` is float32 (n,) for all rows or (rows, n).
        """

    def dequantize(self, blocks: np.ndarray) -> np.ndarray:
        return self.decode(*self.unpack(blocks))

    def fit(self, x: np.ndarray, importance: np.ndarray | None = None) -> Params:
        """Return the scales that ggml's search finds, and its codes under ``codes``."""
        params, codes = self.unpack(self.quantize(x, importance))
        return {**params, "codes": codes}

    @np.errstate(all="ignore")
    def encode(self, x: np.ndarray, params: Params) -> np.ndarray:
        """Choose codes for the scales in ``params``.

        ``params["codes"]``, where there, stand where ggml keeps the search's own codes: in groups
        whose scale rounds to zero, and everywhere in types that never look at the rounded scale.
        """
        kept = params.get("codes")
        if self.keeps_codes and kept is not None:
            return kept
        scale, offset = self._per_weight(params)
        shifted = x if offset is None else self._inverse_combine(x, offset)
        codes = nearest_int((shifted / scale).astype(np.float32, copy=False)) + self.zero
        codes = np.clip(codes, 0, self.levels - 1)
        return np.where(scale == 0, 0 if kept is None else kept, codes).astype(np.uint8)

    @np.errstate(all="ignore")
    def grid(self, params: Params) -> Grid:
        scale, offset = self._per_weight(params)
        if offset is None:
            offset = scale * np.float32(self.zero)
        elif self.combine is np.add:
            offset = -offset
        return Grid(scale, offset, self.levels)

    @np.errstate(all="ignore")
    def decode(self, params: Params, codes: np.ndarray) -> np.ndarray:
        """Return float32 (rows, n) values, rounded as ggml's dequantize_row rounds them."""
        scale, offset = self.scales(params)
        grouped = codes.reshape(len(codes), -1, self.group).astype(np.float32)
        if self.zero:
            grouped -= np.float32(self.zero)
        values = scale[..., None] * grouped
        if offset is not None:
            values = self.combine(values, offset[..., None])
        return values.reshape(len(codes), -1)

    def _per_weight(self, params: Params) -> tuple[np.ndarray, np.ndarray | None]:
        """Return scale and offset repeated for each weight; offset None without one."""
        scale, offset = self.scales(params)
        return per_weight(scale, self.group), None if offset is None else per_weight(
            offset, self.group
        )

    def _inverse_combine(self, x: np.ndarray, offset: np.ndarray) -> np.ndarray:
        found: np.ndarray = x - offset if self.combine is np.add else x + offset
        return found


class Nibbles:
    """Blocks of 32 codes of 4 bits in a last field ``qs``; the fields before it are parameters."""

    layout: np.dtype

    def unpack(self, blocks: np.ndarray) -> tuple[Params, np.ndarray]:
        fields = view_blocks(blocks, self.layout)
        params = {name: fields[name] for name in parameter_names(self.layout)}
        return params, flat(split_planes(fields["qs"], 16, 4))

    def pack(self, params: Params, codes: np.ndarray) -> np.ndarray:
        fields = {name: params[name] for name in parameter_names(self.layout)}
        return join_blocks(self.layout, **fields, qs=join_planes(by_block(codes, 32), 16, 4))


class MinimumType(SearchedType):
    """A K type with scales ``sc`` and minimums ``mn`` under ``d`` and ``dmin``."""

    def packed_params(self, fields: np.ndarray) -> Params:
        """Return the parameters of blocks whose 12 bytes ``scales`` hold them in 6 bits each."""
        sc, mn = split_scales_and_mins(fields["scales"])
        return {"d": fields["d"], "dmin": fields["dmin"], "sc": sc, "mn": mn}

    def scales(self, params: Params) -> tuple[np.ndarray, np.ndarray | None]:
        return flat(widen(params["d"]) * params["sc"]), flat(widen(params["dmin"]) * params["mn"])

    def quantize(self, x: np.ndarray, importance: np.ndarray | None = None) -> np.ndarray:
        from ggq.quants.encoders.block_256 import affine

        return affine(self, x, importance)


def parameter_names(layout: np.dtype) -> tuple[str, ...]:
    """Return the fields of a block before its codes."""
    return (layout.names or ())[:-1]


def per_weight(per_group: np.ndarray, group: int) -> np.ndarray:
    """Return values per group repeated for each weight."""
    return np.repeat(per_group, group, axis=-1)


def flat(values: np.ndarray) -> np.ndarray:
    """Return (rows, blocks, m) as (rows, blocks * m)."""
    return values.reshape(len(values), -1)


def by_block(codes: np.ndarray, block_size: int) -> np.ndarray:
    """Return (rows, n) as (rows, blocks, block_size) uint8."""
    return np.asarray(codes, np.uint8).reshape(len(codes), -1, block_size)


def widen(halves: np.ndarray) -> np.ndarray:
    """Return half-precision scales as float32, one more axis at the end."""
    return halves.astype(np.float32)[..., None]
