"""Rows of floats (F32, F16, BF16) times float32 activations: dots of 4 rows x 4 tokens at a time.

Each product of a row and a token has one vector of running sums, so that its value does not depend
on the tokens beside it; of many tokens panels.py computes the same. A type brings how to widen 16
values and one value. It knows neither threads nor plans.
"""

from ggq.jit import kernel, njit
from ggq.quants.base import Kernels
from ggq.quants.kernels import abi
from ggq.quants.kernels.blocks import finish
from ggq.quants.kernels.panels import MANY, multiply_many, tail
from ggq.simd import (
    bitcast,
    convert,
    f16x16,
    f32x16,
    float32,
    fma,
    int64,
    lane,
    load,
    load_half,
    reduce_add,
    splat,
    store,
    u16x16,
    u32x16,
    uint16,
    uint32,
    zeros,
)


@njit
def _f32_vector(at):
    return load(at, f32x16)


@njit
def _f32_scalar(at):
    return load(at, float32)


@njit
def _f16_vector(at):
    return convert(load(at, f16x16), f32x16)


@njit
def _f16_scalar(at):
    return load_half(at)


@njit
def _bf16_vector(at):
    return bitcast(convert(load(at, u16x16), u32x16) << splat(16, u32x16), f32x16)


@njit
def _bf16_scalar(at):
    bits = splat(uint32(load(at, uint16)) << uint32(16), u32x16)
    return lane(bitcast(bits, f32x16), 0)


@njit
def _fma4(w, x, step, sums):
    """Add one vector of a row times the same columns of four tokens."""
    a, b, c, d = sums
    return (
        fma(w, load(x, f32x16), a),
        fma(w, load(x + step, f32x16), b),
        fma(w, load(x + 2 * step, f32x16), c),
        fma(w, load(x + 3 * step, f32x16), d),
    )


@njit
def _finish(args, row, token, total, at, x, n, size, scalar):
    finish(args, row, token, reduce_add(total) + tail(at, x, n, size, scalar))


@njit
def _finish4(args, row, token, sums, at, x, step, n, size, scalar):
    """Write a row's outputs for four tokens."""
    a, b, c, d = sums
    _finish(args, row, token, a, at, x, n, size, scalar)
    _finish(args, row, token + 1, b, at, x + step, n, size, scalar)
    _finish(args, row, token + 2, c, at, x + 2 * step, n, size, scalar)
    _finish(args, row, token + 3, d, at, x + 3 * step, n, size, scalar)


@njit
def _square(args, row, token, at, row_bytes, x, step, n, size, vector, scalar):
    """Four rows times four tokens: each load feeds four multiply-adds."""
    z = zeros(f32x16)
    r0, r1, r2, r3 = (z, z, z, z), (z, z, z, z), (z, z, z, z), (z, z, z, z)
    for i in range(0, n - n % 16, 16):
        w, xi = at + i * size, x + 4 * i
        r0 = _fma4(vector(w), xi, step, r0)
        r1 = _fma4(vector(w + row_bytes), xi, step, r1)
        r2 = _fma4(vector(w + 2 * row_bytes), xi, step, r2)
        r3 = _fma4(vector(w + 3 * row_bytes), xi, step, r3)
    _finish4(args, row, token, r0, at, x, step, n, size, scalar)
    _finish4(args, row + 1, token, r1, at + row_bytes, x, step, n, size, scalar)
    _finish4(args, row + 2, token, r2, at + 2 * row_bytes, x, step, n, size, scalar)
    _finish4(args, row + 3, token, r3, at + 3 * row_bytes, x, step, n, size, scalar)


@njit
def _four_rows(args, row, token, at, row_bytes, x, n, size, vector, scalar):
    """Four rows times one token."""
    a, b, c, d = zeros(f32x16), zeros(f32x16), zeros(f32x16), zeros(f32x16)
    for i in range(0, n - n % 16, 16):
        w, xi = at + i * size, load(x + 4 * i, f32x16)
        a, b = fma(vector(w), xi, a), fma(vector(w + row_bytes), xi, b)
        c = fma(vector(w + 2 * row_bytes), xi, c)
        d = fma(vector(w + 3 * row_bytes), xi, d)
    _finish(args, row, token, a, at, x, n, size, scalar)
    _finish(args, row + 1, token, b, at + row_bytes, x, n, size, scalar)
    _finish(args, row + 2, token, c, at + 2 * row_bytes, x, n, size, scalar)
    _finish(args, row + 3, token, d, at + 3 * row_bytes, x, n, size, scalar)


@njit
def _one_row(args, row, token, at, x, n, size, vector, scalar):
    total = zeros(f32x16)
    for i in range(0, n - n % 16, 16):
        total = fma(vector(at + i * size), load(x + 4 * i, f32x16), total)
    _finish(args, row, token, total, at, x, n, size, scalar)


@njit
def multiply(args, first, last, size, vector, scalar):
    """Multiply rows [16 first, 16 last) by any number of tokens; ``size``: bytes per weight."""
    n_rows, n = args.n_rows, args.n_cols
    row_bytes, weights = args.row_bytes, args.weights
    step, tokens = args.input_stride, args.input
    n_tokens = load(args.state, int64)
    if n_tokens >= MANY:
        multiply_many(args, first, last, size, vector, scalar)
        return
    end = min(last * abi.GROUP, n_rows)
    whole = end - (end - first * abi.GROUP) % 4
    for row in range(first * abi.GROUP, whole, 4):
        at, t = weights + row * row_bytes, 0
        while t + 4 <= n_tokens:
            x = tokens + t * step
            _square(args, row, t, at, row_bytes, x, step, n, size, vector, scalar)
            t += 4
        for rest in range(t, n_tokens):
            x = tokens + rest * step
            _four_rows(args, row, rest, at, row_bytes, x, n, size, vector, scalar)
    for row in range(whole, end):
        for t in range(n_tokens):
            at, x = weights + row * row_bytes, tokens + t * step
            _one_row(args, row, t, at, x, n, size, vector, scalar)


@njit
def dequantize_rows(args, first, last, size, vector, scalar):
    """Decode the rows whose int64 numbers stand at INPUT; item i writes output row i as float32."""
    n, row_bytes = args.n_cols, args.row_bytes
    ids = args.input
    for item in range(first, last):
        row = args.weights + load(ids + 8 * item, int64) * row_bytes
        out = args.output + item * args.output_stride
        for i in range(0, n - n % 16, 16):
            store(out + 4 * i, vector(row + i * size))
        for i in range(n - n % 16, n):
            store(out + 4 * i, scalar(row + i * size))


def matmul(size, vector, scalar):
    """Return the kernels of float rows: bytes per weight, how 16 weights and how one are read."""

    @kernel(abi.MATMUL)
    def product(args, first, last):
        multiply(args, first, last, size, vector, scalar)

    @kernel(abi.MATMUL)
    def dequantize(args, first, last):
        dequantize_rows(args, first, last, size, vector, scalar)

    return Kernels(product, product, dequantize, activations="f32")


KERNELS = {
    "F32": matmul(4, _f32_vector, _f32_scalar),
    "F16": matmul(2, _f16_vector, _f16_scalar),
    "BF16": matmul(2, _bf16_vector, _bf16_scalar),
}
