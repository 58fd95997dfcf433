"""Q5_K: 256 weights of 5 bits; 8 groups with 6-bit scales ``sc`` and minimums ``mn``."""

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


class Q5_K(MinimumType):
    """w = d * sc * code - dmin * mn."""

    name, ggml_id, block_size, block_bytes = "Q5_K", 13, 256, 176
    fallback = "Q5_1"
    better = "Q6_K"
    candidate_for = (256,)
    group, levels = 32, 32
    layout = np.dtype(
        [("d", "<f2"), ("dmin", "<f2"), ("scales", "u1", 12), ("qh", "u1", 32), ("qs", "u1", 128)]
    )

    def unpack(self, blocks: np.ndarray) -> tuple[Params, np.ndarray]:
        fields = view_blocks(blocks, self.layout)
        high = split_planes(fields["qh"], 32, 1) << np.uint8(4)
        return self.packed_params(fields), flat(split_planes(fields["qs"], 32, 4) | high)

    def pack(self, params: Params, codes: np.ndarray) -> np.ndarray:
        codes = by_block(codes, 256)
        return join_blocks(
            self.layout,
            d=params["d"],
            dmin=params["dmin"],
            scales=join_scales_and_mins(params["sc"], params["mn"]),
            qh=join_planes(codes >> np.uint8(4), 32, 1),
            qs=join_planes(codes & np.uint8(15), 32, 4),
        )


TYPE = Q5_K()
