"""F16: IEEE halves, one weight a block."""

import numpy as np

from ggq.quants.base import Kernels, QuantType


class F16(QuantType):
    """IEEE half precision; values beyond 65504 become infinite, as in ggml."""

    name, ggml_id, block_size, block_bytes = "F16", 1, 1, 2
    file_type = 1
    heeds_importance = False

    def dequantize(self, blocks: np.ndarray) -> np.ndarray:
        """Return the halves widened to float32, exactly."""
        return np.ascontiguousarray(blocks).view("<f2").astype(np.float32)

    def quantize(self, x: np.ndarray, importance: np.ndarray | None = None) -> np.ndarray:
        """Round half to even; importance has nothing to steer (ggml_fp32_to_fp16_row)."""
        with np.errstate(over="ignore"):
            return np.asarray(x, np.float32).astype("<f2").view(np.uint8)

    def matmul(self) -> Kernels:
        """Return the kernels for half rows, which take float32 activations."""
        from ggq.quants.kernels.float_rows import KERNELS

        found: Kernels = KERNELS[self.name]
        return found


TYPE = F16()
