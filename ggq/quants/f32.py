"""F32: plain floats, one weight a block."""

import numpy as np

from ggq.quants.base import Kernels, QuantType


class F32(QuantType):
    """IEEE single precision."""

    name, ggml_id, block_size, block_bytes = "F32", 0, 1, 4

    def dequantize(self, blocks):
        return np.ascontiguousarray(blocks).view("<f4")

    def quantize(self, x, importance=None):
        return np.ascontiguousarray(x, "<f4").view(np.uint8)

    def matmul(self) -> Kernels:
        from ggq.quants.kernels import float_rows

        return Kernels(float_rows.f32_few, float_rows.f32_many, float_rows.f32_rows, activations="f32")


TYPE = F32()
