"""F32: plain floats, one weight a block."""

import numpy as np

from ggq.quants.base import Kernels, QuantType


class F32(QuantType):
    """IEEE single precision."""

    name, ggml_id, block_size, block_bytes = "F32", 0, 1, 4
    file_type = 0
    heeds_importance = False

    def dequantize(self, blocks: np.ndarray) -> np.ndarray:
        """Return the rows' bytes seen as float32, without a copy where they are contiguous."""
        return np.ascontiguousarray(blocks).view("<f4")

    def quantize(self, x: np.ndarray, importance: np.ndarray | None = None) -> np.ndarray:
        """Return the bytes of float32 rows; importance has nothing to steer."""
        return np.ascontiguousarray(x, "<f4").view(np.uint8)

    def matmul(self) -> Kernels:
        """Return the kernels for float rows, which take float32 activations."""
        from ggq.quants.kernels.float_rows import KERNELS

        found: Kernels = KERNELS[self.name]
        return found


TYPE = F32()
