"""conv as plan rows: 16 channels of one sequence are an item, which also keeps their state."""

from numba import int64

from ggq.errors import ModelError
from ggq.jit import kernel, njit
from ggq.runtime.backends.numba.plan import PARTS, Work
from ggq.runtime.backends.numba.values import compiled
from ggq.runtime.cache.layout import PART_BYTES
from ggq.simd import f32x16, fma, load, store, zeros
from ggq.simd.math import sigmoid

_KINDS = {"none": 0, "silu": 1}


@njit
def _input(x, stride, state, step, taps, t):
    """Return the inputs at token ``t`` of this step; the last ones before it are the state."""
    if t >= 0:
        return load(x + t * stride, f32x16)
    return load(state + (t + taps - 1) * step, f32x16)


def _builder():
    def conv_kernel(args, first, last):
        stride, out_stride = load(args + 8, int64), load(args + 24, int64)
        channels, taps = load(args + 40, int64), load(args + 48, int64)
        kind = load(args + 56, int64)
        blocks, step = channels // 16, 4 * channels
        for item in range(first, last):
            part = load(args + 64, int64) + PART_BYTES * (item // blocks)
            column = 64 * (item % blocks)
            row, count = load(part, int64), load(part + 8, int64)
            state = load(part + 16, int64) + load(args + 72, int64) + column
            x, out = load(args, int64) + row * stride + column, load(args + 16, int64)
            out += row * out_stride + column
            weights = load(args + 32, int64) + column
            for t in range(count):
                total = zeros(f32x16)
                for j in range(taps):
                    value = _input(x, stride, state, step, taps, t - taps + 1 + j)
                    total = fma(load(weights + j * step, f32x16), value, total)
                if kind == 1:
                    total = total * sigmoid(total)
                store(out + t * out_stride, total)
            for r in range(taps - 1):  # upwards: what is read was not yet written
                value = _input(x, stride, state, step, taps, count - taps + 1 + r)
                store(state + r * step, value)

    return kernel(conv_kernel)


def run(backend, x, name, layer, kind="none"):
    """Record the convolution and the update of the layer's state."""
    weight = backend.weight(name)
    channels, taps = weight.shape
    if channels % 16 or channels != x.width:
        raise ModelError(f"tensor {name}: {channels} channels are not supported on the CPU")

    def make(value, form, residual):
        source, out = x.f32(), backend.new(value)
        args = [source, source.stride, out, out.stride, weight.transposed, channels, taps]
        args += [_KINDS[kind], backend.inputs.parts, backend.cache.state_offsets[layer][0]]
        work = Work(items=channels // 16, slot=PARTS, chunk=4)
        state = backend.cache.state_names[layer][0]
        backend.recorder.row(
            "conv", compiled(_builder), args, work, reads=[source], writes=[out, state]
        )
        return out

    return backend.value(channels, x.slot, make)
