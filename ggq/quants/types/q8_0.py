"""Q8_0: 32 signed bytes and one half-precision scale ``d``; importance changes nothing."""

import numpy as np

from ggq.quants.base import Params
from ggq.quants.packing import join_blocks, view_blocks
from ggq.quants.searched import SearchedType, by_block, flat


class Q8_0(SearchedType):
    """w = d * (code - 128); the file holds code - 128 as int8."""

    name, ggml_id, block_size, block_bytes = "Q8_0", 8, 32, 34
    file_type = 7
    recommended = True
    heeds_importance = False
    candidate_for = (32, 256)
    group, levels, zero, keeps_codes = 32, 256, 128, True
    layout = np.dtype([("d", "<f2"), ("qs", "u1", 32)])

    def unpack(self, blocks: np.ndarray) -> tuple[Params, np.ndarray]:
        fields = view_blocks(blocks, self.layout)
        return {"d": fields["d"]}, flat(fields["qs"] ^ np.uint8(128))

    def pack(self, params: Params, codes: np.ndarray) -> np.ndarray:
        return join_blocks(self.layout, d=params["d"], qs=by_block(codes, 32) ^ np.uint8(128))

    def quantize(self, x: np.ndarray, importance: np.ndarray | None = None) -> np.ndarray:
        from ggq.quants.encoders.block_32 import signed_bytes

        return signed_bytes(self, x, importance)


TYPE = Q8_0()
