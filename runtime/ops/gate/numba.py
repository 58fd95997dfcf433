"""gate as plan rows: 256 columns of a token are an item; written as floats or quantized at once."""

from ggq.errors import ModelError
from ggq.jit import kernel, njit
from ggq.quants.kernels.abi import SUPER, padded
from ggq.runtime.backends.numba.plan import Work
from ggq.runtime.kernels.gelu import gelu
from ggq.runtime.kernels.rows import quantize_super
from ggq.runtime.ops.gate import OAI_ALPHA, OAI_LIMIT
from ggq.simd import INT, ROWS, Struct, f32x16, float32, fma, load, splat, stack, store, vmax, vmin
from ggq.simd.math import sigmoid

_SILU, _GELU_TANH, _OAI, _NONE, _SIGMOID, _GELU = range(6)
_KINDS = {
    "silu": _SILU,
    "gelu_tanh": _GELU_TANH,
    "swiglu_oai": _OAI,
    "none": _NONE,
    "sigmoid": _SIGMOID,
    "gelu": _GELU,
}
_PART = 4 * SUPER  # bytes of the floats that are quantized together
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
    if kind == _GELU:
        return gelu(x)
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


_ARGUMENTS = Struct(
    "gate", gate=ROWS, up=ROWS, out=ROWS, width=INT, kind=INT, blocks=INT, single=INT
)


@njit
def _each(args, first, last, quantized):
    width, kind, blocks, single = args.width, args.kind, args.blocks, args.single
    part = stack(_PART)
    for item in range(first, last):
        token, block = item // blocks, item % blocks
        column = SUPER * block
        up, count = args.up + token * args.up_stride + 4 * column, min(SUPER, width - column)
        to = args.out + token * args.out_stride
        gate = args.gate + token * args.gate_stride + (0 if single else 4 * column)
        if quantized:
            _block(gate, up, part, kind, count, single)
            quantize_super(part - 4 * column, to, SUPER * blocks, width, block)
        else:
            _block(gate, up, to + 4 * column, kind, count, single)


@kernel(_ARGUMENTS)
def _gate(args, first, last):
    _each(args, first, last, False)


@kernel(_ARGUMENTS)
def _gate_quantized(args, first, last):
    _each(args, first, last, True)


def run(backend, gate, up, kind="silu"):
    """Record act(gate) * up."""
    if kind not in _KINDS:
        raise ModelError(f"activation {kind} is not supported on the CPU")

    def make(value, form, residual):
        a, b, out = gate.f32(), up.f32(), backend.new(value, form)
        blocks = padded(value.width) // SUPER
        backend.recorder.row(
            "gate",
            _gate_quantized if form == "q8" else _gate,
            Work(items=blocks, slot=value.slot, chunk=2),
            reads=[a, b],
            writes=[out],
            gate=a,
            up=b,
            out=out,
            width=value.width,
            kind=_KINDS[kind],
            blocks=blocks,
            single=gate.width == 1,
        )
        return out

    return backend.value(up.width, up.slot, make, quantizes=True)
