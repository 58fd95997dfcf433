"""norm as plan rows: a token is an item; written as floats or quantized at once."""

from numba import float32, int64

from ggq.errors import ModelError
from ggq.jit import kernel, njit
from ggq.quants.kernels import abi
from ggq.runtime.backends.numba.plan import Work
from ggq.runtime.backends.numba.values import compiled, float_bits
from ggq.runtime.kernels.rows import load_valid, quantize_super
from ggq.simd import f32x16, fma, load, reduce_add, splat, sqrt, stack, store, zeros

_KINDS = {"rms": 0, "layer": 1}


@njit
def _root(value):
    from_lane = sqrt(splat(value, f32x16))
    return reduce_add(from_lane) / float32(16)


@njit
def _statistics(x, width, kind, eps):
    """Return the mean (0 for rms) and 1 / sqrt(mean square + eps)."""
    mean = float32(0)
    if kind == 1:
        total = zeros(f32x16)
        for i in range(0, width, 16):
            total = total + load_valid(x + 4 * i, width - i)
        mean = reduce_add(total) / float32(width)
    squares, center = zeros(f32x16), splat(mean, f32x16)
    for i in range(0, width, 16):
        v = load_valid(x + 4 * i, width - i)
        if kind == 1:
            v = v - center
        squares = fma(v, v, squares)
    surplus = float32(-width % 16) * mean * mean if kind == 1 else float32(0)
    return mean, float32(1) / _root((reduce_add(squares) - surplus) / float32(width) + eps)


@njit
def _normalize(x, out, gain, width, kind, eps):
    mean, factor = _statistics(x, width, kind, eps)
    center, scale = splat(mean, f32x16), splat(factor, f32x16)
    for i in range(0, width, 16):
        v = load(x + 4 * i, f32x16)
        if kind == 1:
            v = v - center
        v = v * scale
        if gain:
            v = v * load(gain + 4 * i, f32x16)
        store(out + 4 * i, v)


@njit
def _arguments(args):
    eps = load(args + 32, float32)
    return (
        load(args, int64),
        load(args + 8, int64),
        load(args + 16, int64),
        load(args + 24, int64),
        eps,
    )


def _floats():
    def norm_kernel(args, first, last):
        source, source_stride, out, out_stride, eps = _arguments(args)
        gain, width = load(args + 40, int64), load(args + 48, int64)
        kind, groups = load(args + 56, int64), load(args + 64, int64)
        for item in range(first, last):
            x, to = source + item * source_stride, out + item * out_stride
            for group in range(groups):
                at = 4 * group * width
                _normalize(x + at, to + at, gain, width, kind, eps)

    return kernel(norm_kernel)


def _quantized():
    def norm_quantize_kernel(args, first, last):
        source, source_stride, out, out_stride, eps = _arguments(args)
        gain, width, kind = load(args + 40, int64), load(args + 48, int64), load(args + 56, int64)
        blocks = -(-width // 256)
        part = stack(1024)
        for item in range(first, last):
            x, to = source + item * source_stride, out + item * out_stride
            mean, factor = _statistics(x, width, kind, eps)
            center, scale = splat(mean, f32x16), splat(factor, f32x16)
            for block in range(blocks):
                start = 256 * block
                valid = min(256, width - start)
                for i in range(0, valid, 16):
                    v = load(x + 4 * (start + i), f32x16)
                    if kind == 1:
                        v = v - center
                    v = v * scale
                    if gain:
                        v = v * load(gain + 4 * (start + i), f32x16)
                    store(part + 4 * i, v)
                quantize_super(part - 4 * start, to, 256 * blocks, width, block)

    return kernel(norm_quantize_kernel)


def run(backend, x, name, eps, kind="rms", width=None):
    """Record the norm over groups of ``width`` columns."""
    group = width or x.width
    groups = x.width // group
    if groups > 1 and group % 16:
        raise ModelError(f"norm {name}: heads of {group} columns are not supported on the CPU")
    gain = backend.weight(name).vector if name else 0

    def make(value, form, residual):
        source, out = x.f32(), backend.new(value, form)
        args = [source, source.stride, out, out.stride, float_bits(eps), gain, group]
        args += [_KINDS[kind], groups]
        builder = _quantized if form == "q8" else _floats
        backend.recorder.row(
            "norm", compiled(builder), args, Work(slot=x.slot), reads=[source], writes=[out]
        )
        return out

    make.quantizes = groups == 1
    return backend.value(x.width, x.slot, make)


assert abi.SUPER == 256
