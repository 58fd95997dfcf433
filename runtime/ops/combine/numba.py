"""combine as plan rows: a token is an item; a residual that is added next joins the sum."""

from numba import float32, int64

from ggq.jit import kernel
from ggq.runtime.backends.numba.plan import TOKENS
from ggq.runtime.backends.numba.values import compiled
from ggq.simd import f32x16, fma, load, splat, store, zeros


def _builder():
    def combine_kernel(args, first, last):
        y, stride, place = load(args, int64), load(args + 8, int64), load(args + 16, int64)
        weights, weights_stride = load(args + 24, int64), load(args + 32, int64)
        n_used, out = load(args + 40, int64), load(args + 48, int64)
        out_stride, width = load(args + 56, int64), load(args + 64, int64)
        residual = load(args + 72, int64)
        for item in range(first, last):
            for i in range(0, 4 * width, 64):
                at = item * out_stride + i
                total = load(residual + at, f32x16) if residual else zeros(f32x16)
                for s in range(n_used):
                    pair = item * n_used + s
                    row = load(place + 8 * pair, int64) if place else pair
                    w = load(weights + item * weights_stride + 4 * s, float32)
                    total = fma(splat(w, f32x16), load(y + row * stride + i, f32x16), total)
                store(out + at, total)

    return kernel(combine_kernel)


def run(backend, y, routed):
    """Record the weighted sum."""

    def make(value, form, residual):
        source, out = y.f32(), backend.new(value)
        args = [source, source.stride, routed.place or 0, routed.weights, routed.weights.stride]
        args += [routed.n_used, out, out.stride, y.width, residual or 0]
        reads = [source, routed.weights, *(r for r in (routed.place, residual) if r is not None)]
        backend.recorder.row("combine", compiled(_builder), args, reads=reads, writes=[out])
        return out

    make.adds = True
    return backend.value(y.width, TOKENS, make)
