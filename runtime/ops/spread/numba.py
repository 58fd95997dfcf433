"""spread as plan rows: a token is an item, which writes the rows of all its pairs."""

from ggq.jit import kernel
from ggq.simd import INT, ROWS, f32x16, float32, int64, load, splat, store


@kernel(x=ROWS, place=INT, weights=ROWS, n_used=INT, out=ROWS, width=INT)
def _spread(args, first, last):
    x, x_stride, place, n_used = args.x, args.x_stride, args.place, args.n_used
    weights, weights_stride = args.weights, args.weights_stride
    out, out_stride, width = args.out, args.out_stride, args.width
    for item in range(first, last):
        for s in range(n_used):
            pair = item * n_used + s
            row = load(place + 8 * pair, int64) if place else pair
            w = splat(load(weights + item * weights_stride + 4 * s, float32), f32x16)
            for i in range(0, 4 * width, 64):
                store(out + row * out_stride + i, load(x + item * x_stride + i, f32x16) * w)


def run(backend, x, routed):
    """Record the rows of all pairs."""

    def make(value, form, residual):
        source, out = x.f32(), backend.new(value)
        backend.recorder.row(
            "spread",
            _spread,
            reads=[source, routed.weights, *([routed.place] if routed.place is not None else [])],
            writes=[out],
            x=source,
            place=routed.place,
            weights=routed.weights,
            n_used=routed.n_used,
            out=out,
            width=x.width,
        )
        return out

    return backend.value(x.width, routed.pairs, make)
