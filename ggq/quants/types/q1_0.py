"""Q1_0: 128 signs and their mean magnitude ``d``; importance changes nothing."""

import numpy as np

from ggq.quants.base import QuantType
from ggq.quants.packing import join_blocks, join_planes, split_planes, view_blocks


class Q1_0(QuantType):
    """w = d where the bit is set, else -d."""

    name, ggml_id, block_size, block_bytes = "Q1_0", 41, 128, 18
    heeds_importance = False
    layout = np.dtype([("d", "<f2"), ("qs", "u1", 16)])

    @np.errstate(all="ignore")
    def dequantize(self, blocks: np.ndarray) -> np.ndarray:
        fields = view_blocks(blocks, self.layout)
        d = fields["d"].astype(np.float32)[..., None]
        return np.where(split_planes(fields["qs"], 1, 1), d, -d).reshape(len(blocks), -1)

    @np.errstate(all="ignore")
    def quantize(self, x: np.ndarray, importance: np.ndarray | None = None) -> np.ndarray:
        """Return the blocks of quantize_row_q1_0_ref: magnitudes are summed first to last."""
        x = np.ascontiguousarray(x, np.float32)
        self.row_bytes(x.shape[1])
        blocks = x.reshape(len(x), -1, 128)
        total = np.cumsum(np.abs(blocks), axis=-1, dtype=np.float32)[..., -1]
        bits = (blocks >= 0).astype(np.uint8)
        return join_blocks(self.layout, d=total / np.float32(128), qs=join_planes(bits, 1, 1))


TYPE = Q1_0()
