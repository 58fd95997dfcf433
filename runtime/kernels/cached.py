"""How cached keys and values of each type are written and read: f16, f32, q8_0 and q4_0.

A type brings four functions for a page of one key-value head: ``put_key`` and ``put_value`` write
one position, ``scores4`` and ``mix4`` read (see attend.py). Where it keeps rotated columns, two
more turn queries alike and outputs back (cached_q4_0.py). Type q8_0 holds int8 codes and a half
per 32 columns; keys as [32 columns]([position] halves, [column][position] codes), values as
[position][32 columns](half, codes), as ggml's Q8_0. It knows no plan.
"""

from ggq.jit import njit
from ggq.runtime.cache.layout import PAGE
from ggq.runtime.kernels.attend import mix4, scores4
from ggq.runtime.kernels.cached_q4_0 import (
    Q4_0,
    mix4_q4_0,
    put_key_q4_0,
    put_value_q4_0,
    scores4_q4_0,
    turn_mixed_q4_0,
    turn_query_q4_0,
)
from ggq.simd import (
    convert,
    f16x16,
    f32x16,
    fabs,
    float32,
    fma,
    i8x16,
    i32x16,
    int8,
    load,
    load_half,
    prefetch_far,
    reduce_max,
    rint,
    splat,
    stack,
    store,
    store_half,
    vmax,
    zeros,
)

F16, F32, Q8_0 = 64, 128, 34  # bytes of 32 elements


@njit
def _f16_vector(address):
    return convert(load(address, f16x16), f32x16)


@njit
def _f32_vector(address):
    return load(address, f32x16)


@njit
def scores4_f16(keys, ahead, queries, head, out):
    """Write the dot products of four queries with a page of keys."""
    scores4(keys, ahead, queries, head, out, 2, _f16_vector)


@njit
def scores4_f32(keys, ahead, queries, head, out):
    """Write the dot products of four queries with a page of keys."""
    scores4(keys, ahead, queries, head, out, 4, _f32_vector)


@njit
def mix4_f16(values, ahead, weights, places, sums, width, decays):
    """Add weighted values of a page's positions ``places`` to four outputs."""
    mix4(values, ahead, weights, places, sums, width, decays, 2, _f16_vector)


@njit
def mix4_f32(values, ahead, weights, places, sums, width, decays):
    """Add weighted values of a page's positions ``places`` to four outputs."""
    mix4(values, ahead, weights, places, sums, width, decays, 4, _f32_vector)


@njit
def put_key_f16(page, offset, source, width):
    """Write the float32 key at ``source`` to position ``offset`` of a page."""
    for column in range(width):
        store_half(page + 2 * (column * PAGE + offset), load(source + 4 * column, float32))


@njit
def put_key_f32(page, offset, source, width):
    """Write the float32 key at ``source`` to position ``offset`` of a page."""
    for column in range(width):
        store(page + 4 * (column * PAGE + offset), load(source + 4 * column, float32))


@njit
def put_value_f16(page, offset, source, width):
    """Write the float32 value at ``source`` to position ``offset`` of a page."""
    for column in range(width):
        store_half(page + 2 * (offset * width + column), load(source + 4 * column, float32))


@njit
def put_value_f32(page, offset, source, width):
    """Write the float32 value at ``source`` to position ``offset`` of a page."""
    for column in range(width):
        store(page + 4 * (offset * width + column), load(source + 4 * column, float32))


@njit
def _quantized(source):
    """Return 32 floats as (scale, two vectors of int8 codes), scaled by absmax / 127."""
    a, b = load(source, f32x16), load(source + 64, f32x16)
    top = reduce_max(vmax(fabs(a), fabs(b)))
    step = splat(float32(127) / top if top > 0 else float32(0), f32x16)
    x, y = convert(rint(a * step), i32x16), convert(rint(b * step), i32x16)
    return top / float32(127), convert(x, i8x16), convert(y, i8x16)


@njit
def put_key_q8_0(page, offset, source, width):
    """Quantize the float32 key at ``source`` and write it to position ``offset`` of a page."""
    codes = stack(64)
    for block in range(width // 32):
        scale, x, y = _quantized(source + 128 * block)
        store(codes, x)
        store(codes + 16, y)
        at = page + Q8_0 * PAGE * block
        store_half(at + 2 * offset, scale)
        for i in range(32):
            store(at + PAGE * (2 + i) + offset, load(codes + i, int8))


@njit
def put_value_q8_0(page, offset, source, width):
    """Quantize the float32 value at ``source`` and write it to position ``offset`` of a page."""
    for block in range(width // 32):
        scale, x, y = _quantized(source + 128 * block)
        at = page + Q8_0 * (offset * (width // 32) + block)
        store_half(at, scale)
        store(at + 2, x)
        store(at + 18, y)


@njit
def _codes(address):
    return convert(load(address, i8x16), f32x16)


@njit
def _block_scores(codes, ahead, queries, head, column):
    """Return eight vectors: 32 columns of 32 positions times four queries, without scales."""
    q0, row = queries, 4 * head
    q1, q2, q3 = q0 + row, q0 + 2 * row, q0 + 3 * row
    a0, a1, b0, b1 = zeros(f32x16), zeros(f32x16), zeros(f32x16), zeros(f32x16)
    c0, c1, d0, d1 = a0, a0, a0, a0
    for i in range(32):
        prefetch_far(ahead + Q8_0 * i)
        k0, k1 = _codes(codes + PAGE * i), _codes(codes + PAGE * i + 16)
        at = 4 * (column + i)
        a, b = splat(load(q0 + at, float32), f32x16), splat(load(q1 + at, float32), f32x16)
        c, d = splat(load(q2 + at, float32), f32x16), splat(load(q3 + at, float32), f32x16)
        a0, a1, b0, b1 = fma(a, k0, a0), fma(a, k1, a1), fma(b, k0, b0), fma(b, k1, b1)
        c0, c1, d0, d1 = fma(c, k0, c0), fma(c, k1, c1), fma(d, k0, d0), fma(d, k1, d1)
    return a0, a1, b0, b1, c0, c1, d0, d1


@njit
def _add(at, value, scale):
    store(at, fma(value, scale, load(at, f32x16)))


@njit
def scores4_q8_0(keys, ahead, queries, head, out):
    """Write the dot products of four queries with a page of keys, float32 [4][64]."""
    for i in range(0, 1024, 64):
        store(out + i, zeros(f32x16))
    for block in range(head // 32):
        at = keys + Q8_0 * PAGE * block
        for part in range(2):
            scales = at + PAGE * part
            s0 = convert(load(scales, f16x16), f32x16)
            s1 = convert(load(scales + 32, f16x16), f32x16)
            codes = at + 2 * PAGE + 32 * part
            sums = _block_scores(codes, ahead, queries, head, 32 * block)
            ahead += 32 * Q8_0
            a0, a1, b0, b1, c0, c1, d0, d1 = sums
            to = out + 128 * part
            _add(to, a0, s0)
            _add(to + 64, a1, s1)
            _add(to + 256, b0, s0)
            _add(to + 320, b1, s1)
            _add(to + 512, c0, s0)
            _add(to + 576, c1, s1)
            _add(to + 768, d0, s0)
            _add(to + 832, d1, s1)


@njit
def mix4_q8_0(values, ahead, weights, places, sums, width, decays):
    """Add weighted values of a page's positions ``places`` to four outputs."""
    d0, d1, d2, d3 = decays
    wide = 4 * width
    for block in range(width // 32):
        at = sums + 128 * block
        a0, b0 = load(at, f32x16) * d0, load(at + wide, f32x16) * d1
        c0, e0 = load(at + 2 * wide, f32x16) * d2, load(at + 3 * wide, f32x16) * d3
        a1, b1 = load(at + 64, f32x16) * d0, load(at + wide + 64, f32x16) * d1
        c1 = load(at + 2 * wide + 64, f32x16) * d2
        e1 = load(at + 3 * wide + 64, f32x16) * d3
        for j in range(places[0], places[1]):
            prefetch_far(ahead)
            ahead += Q8_0
            row = values + Q8_0 * (j * (width // 32) + block)
            scale, w = load_half(row), weights + 4 * j
            v0, v1 = _codes(row + 2), _codes(row + 18)
            p0 = splat(load(w, float32) * scale, f32x16)
            p1 = splat(load(w + 256, float32) * scale, f32x16)
            p2 = splat(load(w + 512, float32) * scale, f32x16)
            p3 = splat(load(w + 768, float32) * scale, f32x16)
            a0, b0, c0, e0 = fma(p0, v0, a0), fma(p1, v0, b0), fma(p2, v0, c0), fma(p3, v0, e0)
            a1, b1, c1, e1 = fma(p0, v1, a1), fma(p1, v1, b1), fma(p2, v1, c1), fma(p3, v1, e1)
        store(at, a0)
        store(at + 64, a1)
        store(at + wide, b0)
        store(at + wide + 64, b1)
        store(at + 2 * wide, c0)
        store(at + 2 * wide + 64, c1)
        store(at + 3 * wide, e0)
        store(at + 3 * wide + 64, e1)


@njit
def as_is(at, width):
    """Leave a query or an output as it is."""


# Cache types: (bytes of 32 elements, writer of one position, reader of a page, what turns queries
# and outputs) of keys and values.
TYPES = ("f16", "f32", "q8_0", "q4_0")
KEYS = (
    (F16, put_key_f16, scores4_f16, as_is),
    (F32, put_key_f32, scores4_f32, as_is),
    (Q8_0, put_key_q8_0, scores4_q8_0, as_is),
    (Q4_0, put_key_q4_0, scores4_q4_0, turn_query_q4_0),
)
VALUES = (
    (F16, put_value_f16, mix4_f16, as_is),
    (F32, put_value_f32, mix4_f32, as_is),
    (Q8_0, put_value_q8_0, mix4_q8_0, as_is),
    (Q4_0, put_value_q4_0, mix4_q4_0, turn_mixed_q4_0),
)
