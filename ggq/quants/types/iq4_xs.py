"""IQ4_XS: 256 weights of 4 bits on IQ4_NL's curve; 8 groups with 6-bit scales ``sc`` around 32."""

import numpy as np

from ggq.quants.base import Params
from ggq.quants.packing import join_blocks, join_planes, split_planes, view_blocks
from ggq.quants.searched import by_block, flat, widen
from ggq.quants.tables import CURVE, TableType


class IQ4_XS(TableType):
    """w = d * (sc - 32) * CURVE[code]."""

    name, ggml_id, block_size, block_bytes = "IQ4_XS", 23, 256, 136
    fallback = "IQ4_NL"
    better = "Q5_K"
    candidate_for = (256,)
    group, table = 32, CURVE
    layout = np.dtype([("d", "<f2"), ("high", "u1", 2), ("low", "u1", 4), ("qs", "u1", 128)])

    def unpack(self, blocks: np.ndarray) -> tuple[Params, np.ndarray]:
        fields = view_blocks(blocks, self.layout)
        high = split_planes(fields["high"], 1, 2) << np.uint8(4)
        params = {"d": fields["d"], "sc": split_planes(fields["low"], 1, 4) | high}
        return params, flat(split_planes(fields["qs"], 16, 4))

    def pack(self, params: Params, codes: np.ndarray) -> np.ndarray:
        low = join_planes(params["sc"] & np.uint8(15), 1, 4)
        high = join_planes(params["sc"] >> np.uint8(4), 1, 2)
        qs = join_planes(by_block(codes, 256), 16, 4)
        return join_blocks(self.layout, d=params["d"], high=high, low=low, qs=qs)

    def scales(self, params: Params) -> tuple[np.ndarray, np.ndarray | None]:
        signed = params["sc"].astype(np.int8) - np.int8(32)
        return flat(widen(params["d"]) * signed), None

    def quantize(self, x: np.ndarray, importance: np.ndarray | None = None) -> np.ndarray:
        from ggq.quants.encoders.table import curve

        return curve(self, x, importance)


TYPE = IQ4_XS()
