"""Quantizing activations to 8 bit: 256 columns of a token are one item."""

from numba import int64

from ggq.jit import kernel
from ggq.runtime.kernels.rows import quantize_super
from ggq.simd import load


def quantize_kernel():
    """Return the kernel; its arguments are those that NumbaOps.quantize records."""

    def quantize(args, first, last):
        source, source_stride = load(args, int64), load(args + 8, int64)
        out, out_stride = load(args + 16, int64), load(args + 24, int64)
        width, blocks = load(args + 32, int64), load(args + 40, int64)
        for item in range(first, last):
            token, block = item // blocks, item % blocks
            x, to = source + token * source_stride, out + token * out_stride
            quantize_super(x, to, 256 * blocks, width, block)

    return kernel(quantize)
