"""IQ3_S: per 4 weights a code of 9 bits, eight signs per 8, a scale of 4 bits per 32."""

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


class IQ3_S(MagnitudesType):
    """w = d * (1 + 2 sc) * vector * sign."""

    name, ggml_id, block_size, block_bytes = "IQ3_S", 21, 256, 110
    better = "IQ4_XS"
    layout = np.dtype(
        [("d", "<f2"), ("qs", "u1", 64), ("qh", "u1", 8), ("signs", "u1", 32), ("scales", "u1", 4)]
    )

    search = Search(
        *("IQ3_S", 32, 9, 0.2, 1e-45), even=False, mean=2, factor=1.033, plain=0, refine=1,
        wiped=False,
    )  # fmt: skip

    def values(self, blocks: np.ndarray) -> np.ndarray:
        fields = view_blocks(blocks, self.layout)
        high = split_planes(fields["qh"], 1, 1).astype(np.uint16) << np.uint16(8)
        vectors = look_up(lattice("IQ3_S"), fields["qs"] | high)
        scale = half(fields) * (1 + 2 * four_bit_scales(fields["scales"]))
        scale = np.repeat(scale, 4, axis=-1)[..., None]
        found: np.ndarray = scale * vectors.reshape(*scale.shape[:-1], 8) * signs(fields["signs"])
        return found

    def fields(self, found: LatticeCodes) -> dict[str, np.ndarray]:
        return {
            "d": found.d,
            "qs": low_bytes(found.codes),
            "qh": high_bits(found.codes, 1),
            "signs": found.signs,
            "scales": nibbles(found.scales),
        }


TYPE = IQ3_S()
