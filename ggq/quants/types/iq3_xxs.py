"""IQ3_XXS: per 4 weights a code of 8 bits; per 32 four times seven signs and a scale of 4 bits."""

import numpy as np

from ggq.quants.lattice_types import MagnitudesType, half, low_bytes, sign_words, signs
from ggq.quants.lattices import EVEN_SIGNS, LatticeCodes, Search, lattice
from ggq.quants.packing import look_up, view_blocks


class IQ3_XXS(MagnitudesType):
    """w = d * (0.5 + sc) / 2 * vector * sign."""

    name, ggml_id, block_size, block_bytes = "IQ3_XXS", 18, 256, 98
    better = "IQ3_S"
    wants_importance = True
    layout = np.dtype([("d", "<f2"), ("qs", "u1", 64), ("words", "<u4", 8)])

    search = Search("IQ3_XXS", 32, 15, 0.2, 1e-8, even=True, mean=2, factor=1.0125, plain=0)

    def values(self, blocks: np.ndarray) -> np.ndarray:
        fields = view_blocks(blocks, self.layout)
        word = fields["words"]
        sc = (word >> np.uint32(28)).astype(np.float32)
        scale = half(fields) * (np.float32(0.5) + sc) * np.float32(0.5)
        stored = (word[..., None] >> np.arange(0, 28, 7, dtype=np.uint32)) & np.uint32(127)
        vectors = look_up(lattice("IQ3_XXS"), fields["qs"]).reshape(*stored.shape, 8)
        found: np.ndarray = scale[..., None, None] * vectors * signs(look_up(EVEN_SIGNS, stored))
        return found

    def fields(self, found: LatticeCodes) -> dict[str, np.ndarray]:
        return {"d": found.d, "qs": low_bytes(found.codes), "words": sign_words(found)}


TYPE = IQ3_XXS()
