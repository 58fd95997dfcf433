"""match as plan rows: a token is an item."""

from ggq.jit import kernel, njit
from ggq.runtime.backends.numba import elementwise
from ggq.runtime.kernels.rows import load_valid
from ggq.runtime.ops.match import SMALLEST
from ggq.simd import f32x16, float32, fma, lane, load, reduce_add, splat, sqrt, store, zeros


@njit
def _mean_square(x, width):
    squares = zeros(f32x16)
    for i in range(0, width, 16):
        v = load_valid(x + 4 * i, width - i)
        squares = fma(v, v, squares)
    return reduce_add(squares) / float32(width)


@kernel(elementwise.ARGUMENTS)
def _match(args, first, last):
    stride, out_stride, width = args.a_stride, args.out_stride, args.width
    for item in range(first, last):
        x, like, out = args.a + item * stride, args.b + item * stride, args.out + item * out_stride
        own = max(_mean_square(x, width), float32(SMALLEST))
        factor = lane(sqrt(splat(_mean_square(like, width) / own, f32x16)), 0)
        for i in range(0, 4 * width, 64):
            store(out + i, load(x + i, f32x16) * splat(factor, f32x16))


def run(backend, x, like):
    """Record x scaled to the size of ``like``."""
    return elementwise.record(backend, "match", _match, [x, like])
