"""IQ2_S: per 8 weights a code of 10 bits and eight signs; a scale of 4 bits per 16 weights."""

import numpy as np

from ggq.quants.lattice_types import (
    MagnitudesType,
    four_bit_scales,
    half,
    high_bits,
    low_bytes,
    nibbles,
    signs,
)
from ggq.quants.lattices import LatticeCodes, Search, lattice
from ggq.quants.packing import look_up, split_planes, view_blocks


class IQ2_S(MagnitudesType):
    """w = d * (0.5 + sc) / 4 * vector * sign."""

    name, ggml_id, block_size, block_bytes = "IQ2_S", 22, 256, 82
    better = "IQ3_XXS"
    wants_importance = True
    layout = np.dtype(
        [("d", "<f2"), ("qs", "u1", 32), ("signs", "u1", 32), ("qh", "u1", 8), ("scales", "u1", 8)]
    )

    search = Search(
        *("IQ2_S", 16, 9, 0.1, 1e-8), even=False, mean=2, factor=0.9875, plain=0.25, wiped=False
    )

    def values(self, blocks: np.ndarray) -> np.ndarray:
        fields = view_blocks(blocks, self.layout)
        high = split_planes(fields["qh"], 1, 2).astype(np.uint16) << np.uint16(8)
        scale = half(fields) * (np.float32(0.5) + four_bit_scales(fields["scales"]))
        scale = np.repeat(scale * np.float32(0.25), 2, axis=-1)
        vectors = look_up(lattice("IQ2_S"), fields["qs"] | high)
        found: np.ndarray = scale[..., None] * vectors * signs(fields["signs"])
        return found

    def fields(self, found: LatticeCodes) -> dict[str, np.ndarray]:
        return {
            "d": found.d,
            "qs": low_bytes(found.codes),
            "qh": high_bits(found.codes, 2),
            "signs": found.signs,
            "scales": nibbles(found.scales),
        }


TYPE = IQ2_S()
