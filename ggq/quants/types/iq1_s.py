"""IQ1_S: per 8 weights a code of 11 bits; per 32 a scale of 3 bits and the sign of a shift."""

import numpy as np

from ggq.quants.lattice_types import ShiftedType, half, low_bytes
from ggq.quants.lattices import LatticeCodes, lattice
from ggq.quants.packing import look_up, view_blocks

SHIFT = np.float32(0.125)  # IQ1S_DELTA


class IQ1_S(ShiftedType):
    """w = d * (2 sc + 1) * (vector +- 1/8)."""

    name, ggml_id, block_size, block_bytes = "IQ1_S", 19, 256, 50
    better = "IQ2_XXS"
    wants_importance = True
    group, limit, factor, needs_importance = 32, 1e-12, 1.125, True
    layout = np.dtype([("d", "<f2"), ("qs", "u1", 32), ("qh", "<u2", 8)])

    def values(self, blocks: np.ndarray) -> np.ndarray:
        fields = view_blocks(blocks, self.layout)
        qh = fields["qh"]
        scale = half(fields) * (2 * ((qh >> np.uint16(12)) & np.uint16(7)) + 1)
        shift = np.where(qh & np.uint16(0x8000), -SHIFT, SHIFT)
        high = (qh[..., None] >> np.arange(0, 12, 3, dtype=np.uint16)) & np.uint16(7)
        codes = fields["qs"].reshape(high.shape) | (high << np.uint16(8))
        found: np.ndarray = scale[..., None, None] * (
            look_up(lattice("IQ1_S"), codes) + shift[..., None, None]
        )
        return found

    def fields(self, found: LatticeCodes) -> dict[str, np.ndarray]:
        high = (found.codes >> np.uint16(8)).reshape(*found.d.shape, 8, 4)
        parts = [high[..., i] << np.uint16(3 * i) for i in range(4)]
        parts.append(found.scales.astype(np.uint16) << np.uint16(12))
        parts.append(found.signs[..., ::4].astype(np.uint16) << np.uint16(15))
        return {"d": found.d, "qs": low_bytes(found.codes), "qh": np.bitwise_or.reduce(parts)}


TYPE = IQ1_S()
