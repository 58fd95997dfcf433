"""Q6_K: 256 weights of 6 bits around zero; 16 groups with signed 8-bit scales ``sc``."""

import numpy as np

from ggq.quants.base import Params
from ggq.quants.packing import join_blocks, join_planes, split_planes, view_blocks
from ggq.quants.searched import SearchedType, by_block, flat, widen


class Q6_K(SearchedType):
    """w = d * sc * (code - 32)."""

    name, ggml_id, block_size, block_bytes = "Q6_K", 14, 256, 210
    file_type = 18
    recommended = True
    fallback = "Q8_0"
    better = "Q8_0"
    candidate_for = (256,)
    group, levels, zero = 16, 64, 32
    layout = np.dtype([("ql", "u1", 128), ("qh", "u1", 64), ("sc", "i1", 16), ("d", "<f2")])

    def unpack(self, blocks: np.ndarray) -> tuple[Params, np.ndarray]:
        fields = view_blocks(blocks, self.layout)
        low = split_planes(fields["ql"], 64, 4)
        high = split_planes(fields["qh"], 32, 2) << np.uint8(4)
        return {"d": fields["d"], "sc": fields["sc"]}, flat(low | high)

    def pack(self, params: Params, codes: np.ndarray) -> np.ndarray:
        codes = by_block(codes, 256)
        ql = join_planes(codes & np.uint8(15), 64, 4)
        qh = join_planes(codes >> np.uint8(4), 32, 2)
        return join_blocks(self.layout, ql=ql, qh=qh, sc=params["sc"], d=params["d"])

    def scales(self, params: Params) -> tuple[np.ndarray, np.ndarray | None]:
        return flat(widen(params["d"]) * params["sc"]), None

    def quantize(self, x: np.ndarray, importance: np.ndarray | None = None) -> np.ndarray:
        from ggq.quants.encoders.block_256 import symmetric_6

        return symmetric_6(self, x, importance)


TYPE = Q6_K()
