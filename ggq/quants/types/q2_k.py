"""Q2_K: 256 weights of 2 bits; 16 groups with 4-bit scales ``sc`` and minimums ``mn``."""

import numpy as np

from ggq.quants.base import Params
from ggq.quants.packing import join_blocks, join_planes, split_planes, view_blocks
from ggq.quants.searched import MinimumType, by_block, flat


class Q2_K(MinimumType):
    """w = d * sc * code - dmin * mn."""

    name, ggml_id, block_size, block_bytes = "Q2_K", 10, 256, 84
    fallback = "Q4_0"
    better = "Q3_K"
    candidate_for = (256,)
    group, levels = 16, 4
    layout = np.dtype([("scales", "u1", 16), ("qs", "u1", 64), ("d", "<f2"), ("dmin", "<f2")])

    def unpack(self, blocks: np.ndarray) -> tuple[Params, np.ndarray]:
        fields = view_blocks(blocks, self.layout)
        sc, mn = fields["scales"] & np.uint8(15), fields["scales"] >> np.uint8(4)
        params = {"d": fields["d"], "dmin": fields["dmin"], "sc": sc, "mn": mn}
        return params, flat(split_planes(fields["qs"], 32, 2))

    def pack(self, params: Params, codes: np.ndarray) -> np.ndarray:
        scales = params["sc"] | (params["mn"] << np.uint8(4))
        qs = join_planes(by_block(codes, 256), 32, 2)
        return join_blocks(self.layout, scales=scales, qs=qs, d=params["d"], dmin=params["dmin"])


TYPE = Q2_K()
