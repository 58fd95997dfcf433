"""Weights as NVIDIA's Model Optimizer stores them, beside those of quantmaker; no tests here."""

import numpy as np
from quantmaker import E2M1, Made, e4m3, pairs


def modelopt_fp4(rng, rows, cols):
    """ModelOpt's NVFP4: the same under other names, the second scale a factor."""
    codes = rng.integers(0, 16, (rows, cols))
    byte, scales = e4m3(rng, (rows, cols // 16), positive=True)
    factor = np.float32(1 / 2816.5)
    pieces = {
        ".weight": pairs(codes),
        ".weight_scale": ("F8_E4M3", byte),
        ".weight_scale_2": ("F32", factor),
        ".input_scale": ("F32", np.ones(1, np.float32)),
    }
    scales = (scales.astype(np.float32) * factor).astype(float)
    return Made(pieces, E2M1[codes] * scales.repeat(16, 1) + 0.0)
