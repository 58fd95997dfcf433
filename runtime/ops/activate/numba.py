"""activate as plan rows: a token is an item."""

from numba import int64

from ggq.errors import ModelError
from ggq.jit import kernel, njit
from ggq.runtime.backends.numba import elementwise
from ggq.simd import f32x16, fabs, fma, load, select, splat, store, vmax, zeros
from ggq.simd.math import exp, sigmoid

_GELU, _GELU_TANH, _RELU, _RELU2 = range(4)
_KINDS = {"gelu": _GELU, "gelu_tanh": _GELU_TANH, "relu": _RELU, "relu2": _RELU2}
_CUBIC, _DOUBLE = 0.044715, 1.5957691216057308  # 2 sqrt(2 / pi): tanh through the sigmoid
_HALF_ROOT = 0.7071067811865476
# Abramowitz and Stegun 7.1.26: erf to 1.5e-7
_P = 0.3275911
_A1, _A2, _A3, _A4, _A5 = 0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429


@njit
def _erf(x):
    size, one = fabs(x), splat(1.0, f32x16)
    t = one / fma(size, splat(_P, f32x16), one)
    p = fma(splat(_A5, f32x16), t, splat(_A4, f32x16))
    p = fma(p, t, splat(_A3, f32x16))
    p = fma(p, t, splat(_A2, f32x16))
    p = fma(p, t, splat(_A1, f32x16))
    y = one - p * t * exp(-(x * x))
    return select(x < zeros(f32x16), -y, y)


@njit
def gelu(x):
    """Return x * Phi(x)."""
    return splat(0.5, f32x16) * x * (splat(1.0, f32x16) + _erf(x * splat(_HALF_ROOT, f32x16)))


@njit
def _act(x, kind):
    one = splat(1.0, f32x16)
    if kind == _GELU:
        return gelu(x)
    if kind == _GELU_TANH:
        cubic = fma(x * x, splat(_CUBIC, f32x16), one)
        return x * sigmoid(x * cubic * splat(_DOUBLE, f32x16))
    y = vmax(x, zeros(f32x16))
    return y * y if kind == _RELU2 else y


@kernel(elementwise.ARGUMENTS)
def _activate(args, first, last):
    x, out, kind = args.a, args.out, int64(args.constant)
    stride, out_stride, width = args.a_stride, args.out_stride, args.width
    for item in range(first, last):
        for i in range(0, 4 * width, 64):
            store(out + item * out_stride + i, _act(load(x + item * stride + i, f32x16), kind))


def run(backend, x, kind):
    """Record act(x)."""
    if kind not in _KINDS:
        raise ModelError(f"activation {kind} is not supported on the CPU")
    return elementwise.record(backend, "activate", _activate, [x], float(_KINDS[kind]))
