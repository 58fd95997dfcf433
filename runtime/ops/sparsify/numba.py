"""sparsify as plan rows: a token is an item."""

from ggq.jit import kernel, njit
from ggq.runtime.backends.numba import elementwise
from ggq.runtime.kernels.rows import load_valid
from ggq.simd import f32x16, float32, fma, lane, load, reduce_add, splat, sqrt, store, vmax, zeros


@njit
def _moments(x, width):
    """Return a row's mean and standard deviation."""
    total = zeros(f32x16)
    for i in range(0, width, 16):
        total = total + load_valid(x + 4 * i, width - i)
    mean = reduce_add(total) / float32(width)
    squares, center = zeros(f32x16), splat(mean, f32x16)
    for i in range(0, width, 16):
        v = load_valid(x + 4 * i, width - i) - center
        squares = fma(v, v, squares)
    surplus = float32(-width % 16) * mean * mean  # of the lanes past the row's end
    variance = (reduce_add(squares) - surplus) / float32(width)
    return mean, lane(sqrt(vmax(splat(variance, f32x16), zeros(f32x16))), 0)


@kernel(elementwise.ARGUMENTS)
def _sparsify(args, first, last):
    stride, out_stride, width = args.a_stride, args.out_stride, args.width
    for item in range(first, last):
        x, out = args.a + item * stride, args.out + item * out_stride
        mean, deviation = _moments(x, width)
        cut = splat(mean + args.constant * deviation, f32x16)
        for i in range(0, 4 * width, 64):
            store(out + i, vmax(load(x + i, f32x16) - cut, zeros(f32x16)))


def run(backend, x, multiplier):
    """Record what of x lies above the cut-off."""
    return elementwise.record(backend, "sparsify", _sparsify, [x], multiplier)
