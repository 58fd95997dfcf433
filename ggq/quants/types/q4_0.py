"""Q4_0: 32 weights of 4 bits around zero, one half-precision scale ``d``."""

import numpy as np

from ggq.quants.searched import Nibbles, SearchedType


class Q4_0(Nibbles, SearchedType):
    """w = d * (code - 8)."""

    name, ggml_id, block_size, block_bytes = "Q4_0", 2, 32, 18
    better = "Q5_0"
    candidate_for = (32,)
    group, levels, zero, keeps_codes = 32, 16, 8, True
    layout = np.dtype([("d", "<f2"), ("qs", "u1", 16)])

    def quantize(self, x: np.ndarray, importance: np.ndarray | None = None) -> np.ndarray:
        from ggq.quants.encoders.block_32 import symmetric

        return symmetric(self, x, importance)


TYPE = Q4_0()
