"""BF16: the upper half of a float, one weight a block."""

import numpy as np

from ggq.quants.base import Kernels, QuantType


class BF16(QuantType):
    """Brain float: float32's range with 8 bits of mantissa."""

    name, ggml_id, block_size, block_bytes = "BF16", 30, 1, 2
    file_type = 32
    heeds_importance = False

    def dequantize(self, blocks: np.ndarray) -> np.ndarray:
        """Return the values widened to float32, exactly: the lower 16 bits are zero."""
        wide = np.ascontiguousarray(blocks).view("<u2").astype(np.uint32) << np.uint32(16)
        found: np.ndarray = wide.view(np.float32)
        return found

    def quantize(self, x: np.ndarray, importance: np.ndarray | None = None) -> np.ndarray:
        """Round half to even; NaN stays NaN (ggml_compute_fp32_to_bf16)."""
        bits = np.ascontiguousarray(x, "<f4").view(np.uint32)
        odd = (bits >> np.uint32(16)) & np.uint32(1)
        rounded = (bits + (np.uint32(0x7FFF) + odd)) >> np.uint32(16)
        is_nan = (bits & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000)
        result = np.where(is_nan, (bits >> np.uint32(16)) | np.uint32(64), rounded)
        found: np.ndarray = result.astype("<u2").view(np.uint8)
        return found

    def matmul(self) -> Kernels:
        """Return the kernels for bfloat rows, which take float32 activations."""
        from ggq.quants.kernels.float_rows import KERNELS

        found: Kernels = KERNELS[self.name]
        return found


TYPE = BF16()
