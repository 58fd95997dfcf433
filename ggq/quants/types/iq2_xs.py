"""IQ2_XS: per 8 weights a code of 9 bits and seven signs; a scale of 4 bits per 16 weights."""

import numpy as np

from ggq.quants.lattice_types import MagnitudesType, four_bit_scales, half, nibbles, signs
from ggq.quants.lattices import EVEN_SIGNS, LatticeCodes, Search, lattice
from ggq.quants.packing import look_up, view_blocks


class IQ2_XS(MagnitudesType):
    """w = d * (0.5 + sc) / 4 * vector * sign."""

    name, ggml_id, block_size, block_bytes = "IQ2_XS", 17, 256, 74
    better = "IQ2_S"
    wants_importance = True
    layout = np.dtype([("d", "<f2"), ("qs", "<u2", 32), ("scales", "u1", 8)])

    search = Search("IQ2_XS", 16, 9, 0.1, 1e-15, even=True, mean=1, factor=1)

    def values(self, blocks: np.ndarray) -> np.ndarray:
        fields = view_blocks(blocks, self.layout)
        codes, stored = fields["qs"] & np.uint16(511), fields["qs"] >> np.uint16(9)
        scale = half(fields) * (np.float32(0.5) + four_bit_scales(fields["scales"]))
        scale = np.repeat(scale * np.float32(0.25), 2, axis=-1)
        vectors = look_up(lattice("IQ2_XS"), codes)
        found: np.ndarray = scale[..., None] * vectors * signs(look_up(EVEN_SIGNS, stored))
        return found

    def fields(self, found: LatticeCodes) -> dict[str, np.ndarray]:
        stored = (found.signs & np.uint8(127)).astype(np.uint16)
        return {
            "d": found.d,
            "qs": found.codes | stored << np.uint16(9),
            "scales": nibbles(found.scales),
        }


TYPE = IQ2_XS()
