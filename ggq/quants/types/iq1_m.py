"""IQ1_M: per 8 weights a code of 11 bits and the sign of a shift; a scale of 3 bits per 16.

The half-precision scale lies in the upper nibbles of the four words of scales.
"""

import numpy as np

from ggq.quants.lattice_types import ShiftedType, low_bytes
from ggq.quants.lattices import LatticeCodes, lattice
from ggq.quants.packing import join_planes, look_up, split_planes, view_blocks
from ggq.quants.types.iq1_s import SHIFT


class IQ1_M(ShiftedType):
    """w = d * (2 sc + 1) * (vector +- 1/8)."""

    name, ggml_id, block_size, block_bytes = "IQ1_M", 29, 256, 56
    better = "IQ2_XXS"
    wants_importance = True
    group, limit, factor = 16, 1e-7, 1.1125
    layout = np.dtype([("qs", "u1", 32), ("qh", "u1", 16), ("scales", "<u2", 4)])

    def values(self, blocks: np.ndarray) -> np.ndarray:
        fields = view_blocks(blocks, self.layout)
        words = fields["scales"]
        nibbles = (words & np.uint16(0xF000)) >> np.array([12, 8, 4, 0], np.uint16)
        d = np.bitwise_or.reduce(nibbles, axis=-1).view(np.float16).astype(np.float32)
        sc = (words[..., None] >> np.arange(0, 12, 3, dtype=np.uint16)) & np.uint16(7)
        scale = d[..., None, None] * (2 * sc + 1)
        scale = np.repeat(scale.reshape(*d.shape, 16), 2, axis=-1)
        qh = split_planes(fields["qh"], 1, 4)
        shift = np.where(qh & np.uint8(8), -SHIFT, SHIFT)
        codes = fields["qs"] | ((qh & np.uint8(7)).astype(np.uint16) << np.uint16(8))
        found: np.ndarray = scale[..., None] * (look_up(lattice("IQ1_S"), codes) + shift[..., None])
        return found

    def fields(self, found: LatticeCodes) -> dict[str, np.ndarray]:
        nibbles = low_bytes(found.codes >> np.uint16(8)) | found.signs << np.uint8(3)
        bits = found.d.astype(np.float16).view(np.uint16)[..., None]
        nibble = np.arange(4, dtype=np.uint16)
        words = ((bits >> (4 * nibble)) & np.uint16(15)) << np.uint16(12)
        levels = found.scales.reshape(*found.d.shape, 4, 4).astype(np.uint16) << (3 * nibble)
        return {
            "qs": low_bytes(found.codes),
            "qh": join_planes(nibbles, 1, 4),
            "scales": words | np.bitwise_or.reduce(levels, axis=-1),
        }


TYPE = IQ1_M()
