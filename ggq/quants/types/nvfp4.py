"""NVFP4: 64 floats of 4 bits (E2M1); four groups with scales of 8 bits (E4M3 without a sign)."""

import numpy as np

from ggq.quants.packing import look_up, split_planes, view_blocks
from ggq.quants.readonly import ReadOnlyType
from ggq.quants.tables import E2M1


def _scales() -> np.ndarray:
    """Return half the value of each E4M3 byte, since E2M1 holds twice its own; 0x7F is zero."""
    byte = np.arange(256)
    exponent, mantissa = (byte >> 3) & 15, (byte & 7).astype(np.float32)
    normal = (1 + mantissa / 8) * np.float32(2) ** (exponent - 7)
    values = np.where(exponent == 0, mantissa / 512, normal) / 2
    values[0x7F] = 0
    return values.astype(np.float32)


_E4M3 = _scales()


class NVFP4(ReadOnlyType):
    """w = E4M3[sc] / 2 * E2M1[code]."""

    name, ggml_id, block_size, block_bytes = "NVFP4", 40, 64, 36
    heeds_importance = False
    layout = np.dtype([("scales", "u1", 4), ("qs", "u1", 32)])

    def values(self, blocks: np.ndarray) -> np.ndarray:
        fields = view_blocks(blocks, self.layout)
        codes = split_planes(fields["qs"], 8, 4).reshape(*fields.shape, 4, 16)
        found: np.ndarray = look_up(_E4M3, fields["scales"])[..., None] * look_up(E2M1, codes)
        return found


TYPE = NVFP4()
