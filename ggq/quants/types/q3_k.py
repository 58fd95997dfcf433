"""Q3_K: 256 weights of 3 bits around zero; 16 groups with 6-bit scales ``sc`` around 32."""

import numpy as np

from ggq.quants.base import Params
from ggq.quants.packing import (
    join_blocks,
    join_planes,
    join_six_bit,
    split_planes,
    split_six_bit,
    view_blocks,
)
from ggq.quants.searched import SearchedType, by_block, flat, widen


class Q3_K(SearchedType):
    """w = d * (sc - 32) * (code - 4)."""

    name, ggml_id, block_size, block_bytes = "Q3_K", 11, 256, 110
    fallback = "Q4_0"
    better = "Q4_K"
    candidate_for = (256,)
    group, levels, zero = 16, 8, 4
    layout = np.dtype([("hmask", "u1", 32), ("qs", "u1", 64), ("scales", "u1", 12), ("d", "<f2")])

    def unpack(self, blocks: np.ndarray) -> tuple[Params, np.ndarray]:
        fields = view_blocks(blocks, self.layout)
        high = split_planes(fields["hmask"], 32, 1) << np.uint8(2)
        params = {"d": fields["d"], "sc": split_six_bit(fields["scales"])}
        return params, flat(split_planes(fields["qs"], 32, 2) | high)

    def pack(self, params: Params, codes: np.ndarray) -> np.ndarray:
        codes = by_block(codes, 256)
        hmask = join_planes(codes >> np.uint8(2), 32, 1)
        qs = join_planes(codes & np.uint8(3), 32, 2)
        scales = join_six_bit(params["sc"])
        return join_blocks(self.layout, hmask=hmask, qs=qs, scales=scales, d=params["d"])

    def scales(self, params: Params) -> tuple[np.ndarray, np.ndarray | None]:
        signed = params["sc"].astype(np.int8) - np.int8(32)
        return flat(widen(params["d"]) * signed), None

    def quantize(self, x: np.ndarray, importance: np.ndarray | None = None) -> np.ndarray:
        from ggq.quants.encoders.block_256 import symmetric_3

        return symmetric_3(self, x, importance)


TYPE = Q3_K()
