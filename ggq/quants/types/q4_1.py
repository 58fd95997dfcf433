"""Q4_1: 32 weights of 4 bits above a minimum ``m``, scale ``d``, both half precision."""

import numpy as np

from ggq.quants.base import Params
from ggq.quants.searched import Nibbles, SearchedType


class Q4_1(Nibbles, SearchedType):
    """w = d * code + m."""

    name, ggml_id, block_size, block_bytes = "Q4_1", 3, 32, 20
    file_type = 3
    better = "Q5_1"
    candidate_for = (32,)
    group, levels, keeps_codes = 32, 16, True
    combine = staticmethod(np.add)
    layout = np.dtype([("d", "<f2"), ("m", "<f2"), ("qs", "u1", 16)])

    def scales(self, params: Params) -> tuple[np.ndarray, np.ndarray | None]:
        return params["d"].astype(np.float32), params["m"].astype(np.float32)

    def quantize(self, x: np.ndarray, importance: np.ndarray | None = None) -> np.ndarray:
        from ggq.quants.encoders.block_32 import affine

        return affine(self, x, importance)


TYPE = Q4_1()
