"""conv as plan rows: 16 channels of one sequence are an item, which also keeps their state."""

from ggq.errors import ModelError
from ggq.jit import kernel, njit
from ggq.runtime.backends.numba.plan import PARTS, Work
from ggq.runtime.cache.layout import PART_BYTES
from ggq.simd import INT, ROWS, f32x16, fma, int64, load, store, zeros
from ggq.simd.math import sigmoid

_KINDS = {"none": 0, "silu": 1}


@njit
def _input(x, stride, state, step, size, t):
    """Return the inputs at token ``t`` of this step; the last ones before it are the state."""
    if t >= 0:
        return load(x + t * stride, f32x16)
    return load(state + (t + size - 1) * step, f32x16)


@kernel(
    x=ROWS,
    out=ROWS,
    weights=INT,
    bias=INT,
    channels=INT,
    size=INT,
    kind=INT,
    parts=INT,
    state_offset=INT,
)
def _conv(args, first, last):
    stride, out_stride, kind = args.x_stride, args.out_stride, args.kind
    channels, size = args.channels, args.size
    blocks, step = channels // 16, 4 * channels
    for item in range(first, last):
        part = args.parts + PART_BYTES * (item // blocks)
        column = 64 * (item % blocks)
        row, count = load(part, int64), load(part + 8, int64)
        state = load(part + 16, int64) + args.state_offset + column
        x, out = args.x + row * stride + column, args.out
        out += row * out_stride + column
        weights = args.weights + column
        for t in range(count):
            total = zeros(f32x16)
            for j in range(size):
                value = _input(x, stride, state, step, size, t - size + 1 + j)
                total = fma(load(weights + j * step, f32x16), value, total)
            if args.bias:
                total = total + load(args.bias + column, f32x16)
            if kind == 1:
                total = total * sigmoid(total)
            store(out + t * out_stride, total)
        for r in range(size - 1):  # upwards: what is read was not yet written
            value = _input(x, stride, state, step, size, count - size + 1 + r)
            store(state + r * step, value)


def run(backend, x, name, layer, kind="none", bias=None):
    """Record the convolution and the update of the layer's state."""
    weight = backend.weight(name)
    channels, size = weight.shape
    if channels % 16 or channels != x.width:
        raise ModelError(f"tensor {name}: {channels} channels are not supported on the CPU")

    def make(value, form, residual):
        source, out = x.f32(), backend.new(value)
        backend.recorder.row(
            "conv",
            _conv,
            Work(items=channels // 16, slot=PARTS, chunk=4),
            reads=[source],
            writes=[out, backend.cache.state_names[layer][0]],
            x=source,
            out=out,
            weights=weight.transposed,
            bias=backend.weight(bias).vector if bias else None,
            channels=channels,
            size=size,
            kind=_KINDS[kind],
            parts=backend.inputs.parts,
            state_offset=backend.cache.state_offsets[layer][0],
        )
        return out

    return backend.value(channels, x.slot, make)
