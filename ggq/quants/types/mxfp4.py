"""MXFP4: 32 floats of 4 bits (E2M1) under a common power of two; importance changes nothing."""

import numpy as np

from ggq.quants.base import Params
from ggq.quants.packing import look_up
from ggq.quants.searched import Nibbles
from ggq.quants.tables import E2M1, TableType

_POWERS = np.ldexp(np.float32(1), np.arange(256) - 128)


class MXFP4(Nibbles, TableType):
    """w = 2**(e - 128) * E2M1[code]; the table holds twice the values of the format."""

    name, ggml_id, block_size, block_bytes = "MXFP4", 39, 32, 17
    heeds_importance = False
    candidate_for = (32, 256)
    group, table = 32, E2M1
    layout = np.dtype([("d", "u1"), ("qs", "u1", 16)])

    def scales(self, params: Params) -> tuple[np.ndarray, np.ndarray | None]:
        return look_up(_POWERS, params["d"]), None

    def quantize(self, x: np.ndarray, importance: np.ndarray | None = None) -> np.ndarray:
        from ggq.quants.encoders.table import e2m1

        return e2m1(self, x, importance)


TYPE = MXFP4()
