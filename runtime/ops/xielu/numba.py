"""xielu as plan rows: a token is an item."""

from ggq.jit import kernel
from ggq.runtime.backends.numba import elementwise
from ggq.runtime.ops.xielu import slopes
from ggq.simd import FLOAT, INT, ROWS, f32x16, fma, load, select, splat, store, vmin, zeros
from ggq.simd.math import exp


@kernel(x=ROWS, out=ROWS, width=INT, p=FLOAT, n=FLOAT, beta=FLOAT, eps=FLOAT)
def _xielu(args, first, last):
    x, out, stride, out_stride = args.x, args.out, args.x_stride, args.out_stride
    p, n, beta = splat(args.p, f32x16), splat(args.n, f32x16), splat(args.beta, f32x16)
    eps, one, zero = splat(args.eps, f32x16), splat(1.0, f32x16), zeros(f32x16)
    for item in range(first, last):
        for i in range(0, 4 * args.width, 64):
            v = load(x + item * stride + i, f32x16)
            below = n * (exp(vmin(v, eps)) - one - v)
            curve = select(v > zero, p * v * v, below)
            store(out + item * out_stride + i, fma(beta, v, curve))


def run(backend, x, alpha_p, alpha_n, beta, eps):
    """Record xIELU of x."""
    p, n = slopes(alpha_p, alpha_n, beta)
    places = {"width": x.width, "p": p, "n": n, "beta": beta, "eps": eps}
    return elementwise.record_one(backend, "xielu", _xielu, x, **places)
