"""IQ4_NL: 32 weights of 4 bits that name values of a curve dense around zero; scale ``d``."""

import numpy as np

from ggq.quants.packing import join_blocks, join_planes, split_planes, view_blocks
from ggq.quants.searched import by_block, flat
from ggq.quants.tables import CURVE, TableType


class IQ4_NL(TableType):
    """w = d * CURVE[code]."""

    name, ggml_id, block_size, block_bytes = "IQ4_NL", 20, 32, 18
    group, table = 32, CURVE
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
        from ggq.quants.encoders.table import curve

        return curve(self, x, importance)


TYPE = IQ4_NL()
