"""combine as plan rows: a token is an item; a residual that is added next joins the sum."""

from ggq.jit import kernel
from ggq.runtime.backends.numba.plan import TOKENS
from ggq.simd import INT, ROWS, f32x16, float32, fma, int64, load, splat, store, zeros


@kernel(y=ROWS, place=INT, weights=ROWS, plain=INT, n_used=INT, out=ROWS, width=INT, residual=INT)
def _combine(args, first, last):
    y, stride, place, n_used = args.y, args.y_stride, args.place, args.n_used
    weights, weights_stride = args.weights, args.weights_stride
    out, out_stride, width = args.out, args.out_stride, args.width
    residual, plain = args.residual, args.plain
    for item in range(first, last):
        for i in range(0, 4 * width, 64):
            at = item * out_stride + i
            total = load(residual + at, f32x16) if residual else zeros(f32x16)
            for s in range(n_used):
                pair = item * n_used + s
                row = load(place + 8 * pair, int64) if place else pair
                w = float32(1)
                if not plain:
                    w = load(weights + item * weights_stride + 4 * s, float32)
                total = fma(splat(w, f32x16), load(y + row * stride + i, f32x16), total)
            store(out + at, total)


def run(backend, y, routed, weighted=True):
    """Record the sum."""

    def make(value, form, residual):
        source, out = y.f32(), backend.new(value)
        backend.recorder.row(
            "combine",
            _combine,
            reads=[source, routed.weights, *(r for r in (routed.place, residual) if r is not None)],
            writes=[out],
            y=source,
            place=routed.place,
            weights=routed.weights,
            plain=not weighted,
            n_used=routed.n_used,
            out=out,
            width=y.width,
            residual=residual,
        )
        return out

    return backend.value(y.width, TOKENS, make, adds_residual=True)
