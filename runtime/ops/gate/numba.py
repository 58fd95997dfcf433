"""gate as plan rows: 256 columns of a token are an item; written as floats or quantized at once."""

from numba import int64

from ggq.errors import ModelError
from ggq.jit import kernel, njit
from ggq.quants.kernels import abi
from ggq.runtime.backends.numba import compiled
from ggq.runtime.kernels.rows import quantize_super
from ggq.runtime.ops.gate import OAI_ALPHA, OAI_LIMIT
from ggq.runtime.plan import Work
from ggq.simd import f32x16, fma, load, splat, stack, store, vmax, vmin
from ggq.simd.math import sigmoid

_SILU, _GELU_TANH, _OAI = 0, 1, 2
_KINDS = {"silu": _SILU, "gelu_tanh": _GELU_TANH, "swiglu_oai": _OAI}
_GELU_A, _GELU_B = 1.5957691216057308, 0.044715  # 2 sqrt(2 / pi): tanh through the sigmoid


@njit
def _activate(x, kind):
    if kind == _GELU_TANH:
        cubic = fma(x * x, splat(_GELU_B, f32x16), splat(1.0, f32x16))
        return x * sigmoid(x * cubic * splat(_GELU_A, f32x16))
    return x * sigmoid(x)


@njit
def _block(gate, up, out, kind, count):
    for i in range(0, count, 16):
        g, u = load(gate + 4 * i, f32x16), load(up + 4 * i, f32x16)
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
    part = stack(1024)
    for item in range(first, last):
        token, block = item // blocks, item % blocks
        column = 256 * block
        at, count = token * stride + 4 * column, min(256, width - column)
        to = out + token * out_stride
        if quantized:
            _block(gate + at, up + at, part, kind, count)
            quantize_super(part - 4 * column, to, 256 * blocks, width, block)
        else:
            _block(gate + at, up + at, to + 4 * column, kind, count)


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
        args = [a, b, a.stride, out, out.stride, value.width, _KINDS[kind], blocks]
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
    return backend.value(gate.width, gate.slot, make)
