"""Q4_0: 32 weights of 4 bits around zero, one half-precision scale ``d``."""

import numpy as np

from ggq.quants.packing import join_blocks, join_planes, split_planes, view_blocks
from ggq.quants.searched import SearchedType, by_block, flat


class Q4_0(SearchedType):
    """w = d * (code - 8)."""

    name, ggml_id, block_size, block_bytes = "Q4_0", 2, 32, 18
    group, levels, zero, keeps_codes = 32, 16, 8, True
    layout = np.dtype([("d", "<f2"), ("qs", "u1", 16)])

    def unpack(self, blocks):
        fields = view_blocks(blocks, self.layout)
        return {"d": fields["d"]}, flat(split_planes(fields["qs"], 16, 4))

    def pack(self, params, codes):
        qs = join_planes(by_block(codes, 32), 16, 4)
        return join_blocks(self.layout, d=params["d"], qs=qs)

    def scales(self, params):
        return params["d"].astype(np.float32), None

    def quantize(self, x, importance=None):
        from ggq.quants.encoders.block_32 import symmetric

        return symmetric(self, x, importance)


TYPE = Q4_0()
