"""Q5_1: 32 weights of 5 bits above a minimum ``m``; the fifth bits lie apart in ``qh``."""

import numpy as np

from ggq.quants.base import Params
from ggq.quants.packing import (
    join_blocks,
    join_nibbles_and_bits,
    split_nibbles_and_bits,
    view_blocks,
)
from ggq.quants.searched import SearchedType, by_block, flat


class Q5_1(SearchedType):
    """w = d * code + m."""

    name, ggml_id, block_size, block_bytes = "Q5_1", 7, 32, 24
    file_type = 9
    better = "Q8_0"
    candidate_for = (32,)
    group, levels, keeps_codes = 32, 32, True
    combine = staticmethod(np.add)
    layout = np.dtype([("d", "<f2"), ("m", "<f2"), ("qh", "u1", 4), ("qs", "u1", 16)])

    def unpack(self, blocks: np.ndarray) -> tuple[Params, np.ndarray]:
        fields = view_blocks(blocks, self.layout)
        codes = split_nibbles_and_bits(fields["qs"], fields["qh"])
        return {"d": fields["d"], "m": fields["m"]}, flat(codes)

    def pack(self, params: Params, codes: np.ndarray) -> np.ndarray:
        qs, qh = join_nibbles_and_bits(by_block(codes, 32))
        return join_blocks(self.layout, d=params["d"], m=params["m"], qh=qh, qs=qs)

    def scales(self, params: Params) -> tuple[np.ndarray, np.ndarray | None]:
        return params["d"].astype(np.float32), params["m"].astype(np.float32)

    def quantize(self, x: np.ndarray, importance: np.ndarray | None = None) -> np.ndarray:
        from ggq.quants.encoders.block_32 import affine

        return affine(self, x, importance)


TYPE = Q5_1()
