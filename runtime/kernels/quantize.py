"""Recording the quantization of activations to 8 bit: 256 columns of a token are one item."""

from numba import int64

from ggq.jit import kernel
from ggq.quants.kernels import abi
from ggq.runtime.backends.numba.plan import Work
from ggq.runtime.backends.numba.values import compiled
from ggq.runtime.kernels.rows import quantize_super
from ggq.simd import load


def _builder():
    def quantize_kernel(args, first, last):
        source, source_stride = load(args, int64), load(args + 8, int64)
        out, out_stride = load(args + 16, int64), load(args + 24, int64)
        width, blocks = load(args + 32, int64), load(args + 40, int64)
        for item in range(first, last):
            token, block = item // blocks, item % blocks
            x, to = source + token * source_stride, out + token * out_stride
            quantize_super(x, to, 256 * blocks, width, block)

    return kernel(quantize_kernel)


def record(backend, x):
    """Record the quantization of ``x``; return the buffer."""
    source, out = x.f32(), backend.new(x, "q8")
    blocks = abi.padded(x.width) // abi.SUPER
    args = [source, source.stride, out, out.stride, x.width, blocks]
    backend.recorder.row(
        "quantize",
        compiled(_builder),
        args,
        Work(items=blocks, slot=x.slot, chunk=4),
        reads=[source],
        writes=[out],
    )
    return out
