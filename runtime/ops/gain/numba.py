"""gain as plan rows: a token is an item."""

from ggq.jit import kernel
from ggq.runtime.backends.numba import elementwise
from ggq.simd import f32x16, load, store


@kernel(elementwise.BY_ROW)
def _gain(args, first, last):
    x, stride, row = args.x, args.x_stride, args.row
    out, out_stride, width = args.out, args.out_stride, args.width
    for item in range(first, last):
        for i in range(0, 4 * width, 64):
            product = load(x + item * stride + i, f32x16) * load(row + i, f32x16)
            store(out + item * out_stride + i, product)


def run(backend, x, name):
    """Record the product with the tensor's first row."""
    return elementwise.record_by_row(backend, "gain", _gain, x, name)
