"""IQ2_XXS: per 32 weights four codes of 8 bits, four times seven signs and a scale of 4 bits."""

import numpy as np

from ggq.quants.lattice_types import MagnitudesType, half, sign_words, signs
from ggq.quants.lattices import EVEN_SIGNS, LatticeCodes, Search, lattice
from ggq.quants.packing import look_up, view_blocks


class IQ2_XXS(MagnitudesType):
    """w = d * (0.5 + sc) / 4 * vector * sign."""

    name, ggml_id, block_size, block_bytes = "IQ2_XXS", 16, 256, 66
    better = "IQ2_XS"
    wants_importance = True
    layout = np.dtype([("d", "<f2"), ("qs", [("codes", "u1", 4), ("word", "<u4")], 8)])

    search = Search(
        *("IQ2_XXS", 32, 6, 0.1, 1e-15), even=True, mean=1, factor=1, refine=2, fitted=True
    )

    def values(self, blocks: np.ndarray) -> np.ndarray:
        fields = view_blocks(blocks, self.layout)
        codes, word = fields["qs"]["codes"], fields["qs"]["word"]
        sc = (word >> np.uint32(28)).astype(np.float32)
        scale = half(fields) * (np.float32(0.5) + sc) * np.float32(0.25)
        stored = (word[..., None] >> np.arange(0, 28, 7, dtype=np.uint32)) & np.uint32(127)
        vectors = scale[..., None, None] * look_up(lattice("IQ2_XXS"), codes)
        found: np.ndarray = vectors * signs(look_up(EVEN_SIGNS, stored))
        return found

    def fields(self, found: LatticeCodes) -> dict[str, np.ndarray]:
        qs = np.empty((*found.d.shape, 8), self.layout["qs"].base)
        qs["codes"] = found.codes.reshape(*qs.shape, 4)
        qs["word"] = sign_words(found)
        return {"d": found.d, "qs": qs}


TYPE = IQ2_XXS()
