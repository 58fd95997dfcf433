"""The ternary types TQ1_0, TQ2_0 and Q2_0: weights of -1, 0 or 1 times the largest magnitude ``d``.

They are for models trained to three values; importance changes nothing.
"""

from abc import abstractmethod

import numpy as np

from ggq.quants.base import QuantType
from ggq.quants.packing import join_blocks, view_blocks


class TernaryType(QuantType):
    """w = d * (code - 1)."""

    heeds_importance = False
    candidate_for = (256,)
    layout: np.dtype
    undefined = 1  # the code that ggml on x86 gives where 1 / d overflows

    @abstractmethod
    def split(self, fields: np.ndarray) -> np.ndarray:
        """Return the codes, uint8 (rows, blocks, block_size), of structured blocks."""

    @abstractmethod
    def join(self, codes: np.ndarray) -> dict[str, np.ndarray]:
        """Return the fields of blocks that hold ``codes``; inverse of `split`."""

    @np.errstate(all="ignore")
    def dequantize(self, blocks: np.ndarray) -> np.ndarray:
        fields = view_blocks(blocks, self.layout)
        levels = self.split(fields).astype(np.float32) - np.float32(1)
        values = fields["d"].astype(np.float32)[..., None] * levels
        found: np.ndarray = values.reshape(len(blocks), -1)
        return found

    @np.errstate(all="ignore")
    def quantize(self, x: np.ndarray, importance: np.ndarray | None = None) -> np.ndarray:
        """Return the blocks of ggml's quantize_row_tq1_0_ref and its like, byte for byte."""
        x = np.ascontiguousarray(x, np.float32)
        self.row_bytes(x.shape[1])
        blocks = x.reshape(len(x), -1, self.block_size)
        d = np.abs(blocks).max(-1)
        inverse = np.where(d == 0, np.float32(0), np.float32(1) / d)
        scaled = blocks * inverse[..., None]
        # Half away from zero; the float below 0.5, since 0.5 itself would lift 0.49999997 to 1.
        away = np.trunc(scaled + np.copysign(np.float32(0.49999997), scaled))
        codes = np.where(np.isfinite(away), away + np.float32(1), np.float32(self.undefined))
        return join_blocks(self.layout, d=d, **self.join(codes.astype(np.uint8)))
