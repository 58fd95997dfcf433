"""IQ4_NL: 32 weights of 4 bits that name values of a curve dense around zero; scale ``d``."""

import numpy as np

from ggq.quants.searched import Nibbles
from ggq.quants.tables import CURVE, TableType


class IQ4_NL(Nibbles, TableType):
    """w = d * CURVE[code]."""

    name, ggml_id, block_size, block_bytes = "IQ4_NL", 20, 32, 18
    better = "Q5_0"
    candidate_for = (32,)
    group, table = 32, CURVE
    layout = np.dtype([("d", "<f2"), ("qs", "u1", 16)])

    def quantize(self, x: np.ndarray, importance: np.ndarray | None = None) -> np.ndarray:
        from ggq.quants.encoders.table import curve

        return curve(self, x, importance)


TYPE = IQ4_NL()
