"""Q2_0: 64 weights of 2 bits, four neighbours a byte; the encoder uses three of the four values."""

import numpy as np

from ggq.quants.packing import join_planes, split_planes
from ggq.quants.ternary import TernaryType


class Q2_0(TernaryType):
    """w = d * (code - 1), code 0 .. 3."""

    name, ggml_id, block_size, block_bytes = "Q2_0", 42, 64, 18
    fallback = "Q4_0"
    undefined = 0
    layout = np.dtype([("d", "<f2"), ("qs", "u1", 16)])

    def split(self, fields: np.ndarray) -> np.ndarray:
        return split_planes(fields["qs"], 1, 2)

    def join(self, codes: np.ndarray) -> dict[str, np.ndarray]:
        return {"qs": join_planes(codes, 1, 2)}


TYPE = Q2_0()
