"""Q5_0: 32 weights of 5 bits around zero, scale ``d``; the fifth bits lie apart in ``qh``."""

import numpy as np

from ggq.quants.base import Params
from ggq.quants.packing import (
    join_blocks,
    join_nibbles_and_bits,
    split_nibbles_and_bits,
    view_blocks,
)
from ggq.quants.searched import SearchedType, by_block, flat


class Q5_0(SearchedType):
    """w = d * (code - 16)."""

    name, ggml_id, block_size, block_bytes = "Q5_0", 6, 32, 22
    better = "Q8_0"
    candidate_for = (32,)
    group, levels, zero, keeps_codes = 32, 32, 16, True
    layout = np.dtype([("d", "<f2"), ("qh", "u1", 4), ("qs", "u1", 16)])

    def unpack(self, blocks: np.ndarray) -> tuple[Params, np.ndarray]:
        fields = view_blocks(blocks, self.layout)
        return {"d": fields["d"]}, flat(split_nibbles_and_bits(fields["qs"], fields["qh"]))

    def pack(self, params: Params, codes: np.ndarray) -> np.ndarray:
        qs, qh = join_nibbles_and_bits(by_block(codes, 32))
        return join_blocks(self.layout, d=params["d"], qh=qh, qs=qs)

    def quantize(self, x: np.ndarray, importance: np.ndarray | None = None) -> np.ndarray:
        from ggq.quants.encoders.block_32 import symmetric

        return symmetric(self, x, importance)


TYPE = Q5_0()
