"""IQ2_XXS: per 32 weights four codes of 8 bits, four times seven signs and a scale of 4 bits."""

import numpy as np

from ggq.quants.lattices import EVEN_SIGNS, half, lattice, signs
from ggq.quants.packing import look_up, view_blocks
from ggq.quants.readonly import ReadOnlyType


class IQ2_XXS(ReadOnlyType):
    """w = d * (0.5 + sc) / 4 * vector * sign."""

    name, ggml_id, block_size, block_bytes = "IQ2_XXS", 16, 256, 66
    layout = np.dtype([("d", "<f2"), ("qs", [("codes", "u1", 4), ("word", "<u4")], 8)])

    def values(self, blocks):
        fields = view_blocks(blocks, self.layout)
        codes, word = fields["qs"]["codes"], fields["qs"]["word"]
        sc = (word >> np.uint32(28)).astype(np.float32)
        scale = half(fields) * (np.float32(0.5) + sc) * np.float32(0.25)
        stored = (word[..., None] >> np.arange(0, 28, 7, dtype=np.uint32)) & np.uint32(127)
        vectors = scale[..., None, None] * look_up(lattice("IQ2_XXS"), codes)
        return vectors * signs(look_up(EVEN_SIGNS, stored))


TYPE = IQ2_XXS()
