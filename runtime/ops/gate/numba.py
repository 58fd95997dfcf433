"""gate as plan rows: 256 columns of a token are an item; written as floats or quantized at once."""

from numba import float32, int64

from ggq.errors import ModelError
from ggq.jit import kernel, njit
from ggq.quants.kernels import abi
from ggq.runtime.backends.numba.plan import Work
from ggq.runtime.backends.numba.values import compiled
from ggq.runtime.kernels.rows import quantize_super
from ggq.runtime.ops.gate import OAI_ALPHA, OAI_LIMIT
from ggq.simd import f32x16, fma, load, splat, stack, store, vmax, vmin
from ggq.simd.math import sigmoid

_SILU, _GELU_TANH, _OAI, _NONE, _SIGMOID = range(5)
_KINDS = {
    "silu": _SILU,
    "gelu_tanh": _GELU_TANH,
    "swiglu_oai": _OAI,
    "none": _NONE,
    "sigmoid": _SIGMOID,
}
_GELU_A, _GELU_B = 1.5957691216057308, 0.044715  # 2 sqrt(2 / pi): tanh through the sigmoid


@njit
def _activate(x, kind):
    if kind == _GELU_TANH:
        cubic = fma(x * x, splat(_GELU_B, f32x16), splat(1.0, f32x16))
        return x * sigmoid(x * cubic * splat(_GELU_A, f32x16))
    if kind == _NONE:
        return x
    if kind == _SIGMOID:
        return sigmoid(x)
    return x * sigmoid(x)


@njit
def _block(gate, up, out, kind, count, single):
    for i in range(0, count, 16):
        u = load(up + 4 * i, f32x16)
        g = splat(load(gate, float32), f32x16) if single else load(gate + 4 * i, f32x16)
        if kind == _OAI:
            limit = splat(OAI_LIMIT, f32x16)
            g, u = vmin(g, limit), vmax(vmin(u, limit), -limit)
            product = g * sigmoid(g * splat(OAI_ALPHA, f32x16)) * (u + splat(1.0, f32x16))
        else:
            product = _activate(g, kind) * u
        store(out + 4 * i, product)


@njit
def _each(args, first, last, quantized):
    gate, up, stride = load(args, int64), load(args + 8, int64), load(args + 16, int64)
    out, out_stride = load(args + 24, int64), load(args + 32, int64)
    width, kind, blocks = load(args + 40, int64), load(args + 48, int64), load(args + 56, int64)
    gate_stride, single = load(args + 64, int64), load(args + 72, int64)
    part = stack(1024)
    for item in range(first, last):
        token, block = item // blocks, item % blocks
        column = 256 * block
        at, count = token * stride + 4 * column, min(256, width - column)
        to = out + token * out_stride
        g = gate + token * gate_stride + (0 if single else 4 * column)
        if quantized:
            _block(g, up + at, part, kind, count, single)
            quantize_super(part - 4 * column, to, 256 * blocks, width, block)
        else:
            _block(g, up + at, to + 4 * column, kind, count, single)


def _floats():
    def gate_kernel(args, first, last):
        _each(args, first, last, False)

    return kernel(gate_kernel)


def _quantized():
    def gate_quantize_kernel(args, first, last):
        _each(args, first, last, True)

    return kernel(gate_quantize_kernel)


def run(backend, gate, up, kind="silu"):
    """Record act(gate) * up."""
    if kind not in _KINDS:
        raise ModelError(f"activation {kind} is not supported on the CPU")

    def make(value, form, residual):
        a, b, out = gate.f32(), up.f32(), backend.new(value, form)
        blocks = abi.padded(value.width) // abi.SUPER
        args = [a, b, b.stride, out, out.stride, value.width, _KINDS[kind], blocks]
        args += [a.stride, int(gate.width == 1)]
        builder = _quantized if form == "q8" else _floats
        backend.recorder.row(
            "gate",
            compiled(builder),
            args,
            Work(items=blocks, slot=value.slot, chunk=2),
            reads=[a, b],
            writes=[out],
        )
        return out

    make.quantizes = True
    return backend.value(up.width, up.slot, make)
