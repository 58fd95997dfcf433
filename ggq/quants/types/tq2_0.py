"""TQ2_0: ternary weights in 2 bits each."""

import numpy as np

from ggq.quants.packing import join_planes, split_planes
from ggq.quants.ternary import TernaryType


class TQ2_0(TernaryType):
    """Four weights a byte, 32 apart."""

    name, ggml_id, block_size, block_bytes = "TQ2_0", 35, 256, 66
    fallback = "Q4_0"
    layout = np.dtype([("qs", "u1", 64), ("d", "<f2")])

    def split(self, fields: np.ndarray) -> np.ndarray:
        return split_planes(fields["qs"], 32, 2)

    def join(self, codes: np.ndarray) -> dict[str, np.ndarray]:
        return {"qs": join_planes(codes, 32, 2)}


TYPE = TQ2_0()
