"""Q4_K: 256 weights of 4 bits; 8 groups with 6-bit scales ``sc`` and minimums ``mn``."""

import numpy as np

from ggq.quants.base import Params
from ggq.quants.packing import (
    join_blocks,
    join_planes,
    join_scales_and_mins,
    split_planes,
    view_blocks,
)
from ggq.quants.searched import MinimumType, by_block, flat


class Q4_K(MinimumType):
    """w = d * sc * code - dmin * mn."""

    name, ggml_id, block_size, block_bytes = "Q4_K", 12, 256, 144
    fallback = "Q5_0"
    better = "Q5_K"
    candidate_for = (256,)
    group, levels = 32, 16
    layout = np.dtype([("d", "<f2"), ("dmin", "<f2"), ("scales", "u1", 12), ("qs", "u1", 128)])

    def unpack(self, blocks: np.ndarray) -> tuple[Params, np.ndarray]:
        fields = view_blocks(blocks, self.layout)
        return self.packed_params(fields), flat(split_planes(fields["qs"], 32, 4))

    def pack(self, params: Params, codes: np.ndarray) -> np.ndarray:
        scales = join_scales_and_mins(params["sc"], params["mn"])
        qs = join_planes(by_block(codes, 256), 32, 4)
        return join_blocks(self.layout, d=params["d"], dmin=params["dmin"], scales=scales, qs=qs)


TYPE = Q4_K()
