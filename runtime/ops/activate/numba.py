"""activate as plan rows: a token is an item."""

from ggq.errors import ModelError
from ggq.jit import kernel, njit
from ggq.runtime.backends.numba import elementwise
from ggq.runtime.kernels.gelu import gelu
from ggq.simd import f32x16, fma, int64, load, splat, store, vmax, zeros
from ggq.simd.math import sigmoid

_GELU, _GELU_TANH, _RELU, _RELU2, _GELU_QUICK, _SILU = range(6)
_KINDS = {
    "gelu": _GELU,
    "gelu_tanh": _GELU_TANH,
    "gelu_quick": _GELU_QUICK,
    "silu": _SILU,
    "relu": _RELU,
    "relu2": _RELU2,
}
_QUICK = 1.702
_CUBIC, _DOUBLE = 0.044715, 1.5957691216057308  # 2 sqrt(2 / pi): tanh through the sigmoid


@njit
def _act(x, kind):
    one = splat(1.0, f32x16)
    if kind == _GELU:
        return gelu(x)
    if kind == _GELU_TANH:
        cubic = fma(x * x, splat(_CUBIC, f32x16), one)
        return x * sigmoid(x * cubic * splat(_DOUBLE, f32x16))
    if kind == _GELU_QUICK:
        return x * sigmoid(x * splat(_QUICK, f32x16))
    if kind == _SILU:
        return x * sigmoid(x)
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
