"""Cached keys and values of type q4_0: rotated (hadamard.py), a half and 32 codes of 4 bits.

A page's 32 columns are 64 halves, one of each position, then codes: of keys [16][position], of
values [position][16] bytes. A byte holds columns i (low four bits) and i + 16, both from -8 to 7,
as ggml's Q4_0 less its offset. Reading shifts column i's code into the top bits of 32: it counts
2**28 times there, which queries and outputs make up for, exactly. It knows no plan.
"""

from ggq.jit import njit
from ggq.runtime.cache.layout import PAGE
from ggq.runtime.kernels.attend import MAX_KEY
from ggq.runtime.kernels.hadamard import hadamard
from ggq.simd import (
    convert,
    f16x16,
    f32x16,
    float32,
    fma,
    i8x16,
    i32x16,
    int8,
    load,
    prefetch_far,
    reduce_max,
    rint,
    splat,
    stack,
    store,
    store_half,
    vmax,
    vmin,
    zeros,
)

Q4_0 = 18  # bytes of 32 elements
_BLOCK = Q4_0 * PAGE  # of a page's 32 columns
_CODES = 2 * PAGE  # where their codes begin
_HIGH = 2.0**-28
_COLUMNS, _WEIGHTS = 4 * MAX_KEY, 4 * 4 * PAGE  # bytes of a head, of four queries' weights


@njit
def _quantized(source):
    """Return 32 floats as (scale, 16 bytes of codes): the largest becomes -8, as in ggml."""
    a, b = load(source, f32x16), load(source + 64, f32x16)
    top, bottom = reduce_max(vmax(a, b)), reduce_max(vmax(-a, -b))
    largest = top if top >= bottom else -bottom
    step = splat(float32(-8) / largest if largest != 0 else float32(0), f32x16)
    most, mask = splat(float32(7), f32x16), splat(15, i32x16)
    low = convert(vmin(rint(a * step), most), i32x16) & mask
    high = convert(vmin(rint(b * step), most), i32x16) << splat(4, i32x16)
    return largest * float32(-0.125), convert(low | high, i8x16)


@njit
def _rotated(source, to, width):
    """Write the transform of ``width`` floats."""
    for i in range(0, 4 * width, 64):
        store(to + i, load(source + i, f32x16))
    hadamard(to, width)


@njit
def put_key_q4_0(page, offset, source, width):
    """Quantize the float32 key at ``source`` and write it to position ``offset`` of a page."""
    rotated, codes = stack(_COLUMNS), stack(16)
    _rotated(source, rotated, width)
    for block in range(width // 32):
        scale, both = _quantized(rotated + 128 * block)
        store(codes, both)
        at = page + _BLOCK * block
        store_half(at + 2 * offset, scale)
        for i in range(16):
            store(at + _CODES + PAGE * i + offset, load(codes + i, int8))


@njit
def put_value_q4_0(page, offset, source, width):
    """Quantize the float32 value at ``source`` and write it to position ``offset`` of a page."""
    rotated = stack(_COLUMNS)
    _rotated(source, rotated, width)
    for block in range(width // 32):
        scale, both = _quantized(rotated + 128 * block)
        at = page + _BLOCK * block
        store_half(at + 2 * offset, scale)
        store(at + _CODES + 16 * offset, both)


@njit
def _scale_low(at, width):
    """Divide the first 16 of each 32 columns by 2**28."""
    for i in range(0, 4 * width, 128):
        store(at + i, load(at + i, f32x16) * splat(float32(_HIGH), f32x16))


@njit
def turn_query_q4_0(at, width):
    """Make a query's float32 columns at ``at`` what `scores4_q4_0` multiplies keys with."""
    hadamard(at, width)
    _scale_low(at, width)


@njit
def turn_mixed_q4_0(at, width):
    """Make the sums of `mix4_q4_0` at ``at`` those of the values themselves."""
    _scale_low(at, width)
    hadamard(at, width)


@njit
def _unpacked(address):
    """Return 16 bytes' low codes times 2**28, and their high ones."""
    both = convert(load(address, i8x16), i32x16)
    low, high = both << splat(28, i32x16), both >> splat(4, i32x16)
    return convert(low, f32x16), convert(high, f32x16)


@njit
def _block_scores(codes, ahead, queries, head, column):
    """Return eight vectors: 32 columns of 32 positions times four queries, without scales."""
    row = 4 * head
    q0 = queries + 4 * column
    q1, q2, q3 = q0 + row, q0 + 2 * row, q0 + 3 * row
    a0, a1, b0, b1 = zeros(f32x16), zeros(f32x16), zeros(f32x16), zeros(f32x16)
    c0, c1, d0, d1 = a0, a0, a0, a0
    for i in range(16):
        prefetch_far(ahead + 2 * Q4_0 * i)
        x0, y0 = _unpacked(codes + PAGE * i)
        x1, y1 = _unpacked(codes + PAGE * i + 16)
        at = 4 * i
        a, b = splat(load(q0 + at, float32), f32x16), splat(load(q1 + at, float32), f32x16)
        c, d = splat(load(q2 + at, float32), f32x16), splat(load(q3 + at, float32), f32x16)
        a0, a1, b0, b1 = fma(a, x0, a0), fma(a, x1, a1), fma(b, x0, b0), fma(b, x1, b1)
        c0, c1, d0, d1 = fma(c, x0, c0), fma(c, x1, c1), fma(d, x0, d0), fma(d, x1, d1)
        at += 64
        a, b = splat(load(q0 + at, float32), f32x16), splat(load(q1 + at, float32), f32x16)
        c, d = splat(load(q2 + at, float32), f32x16), splat(load(q3 + at, float32), f32x16)
        a0, a1, b0, b1 = fma(a, y0, a0), fma(a, y1, a1), fma(b, y0, b0), fma(b, y1, b1)
        c0, c1, d0, d1 = fma(c, y0, c0), fma(c, y1, c1), fma(d, y0, d0), fma(d, y1, d1)
    return a0, a1, b0, b1, c0, c1, d0, d1


@njit
def _add(at, value, scale):
    store(at, fma(value, scale, load(at, f32x16)))


@njit
def scores4_q4_0(keys, ahead, queries, head, out):
    """Write the dot products of four queries with a page of keys, float32 [4][64]."""
    for i in range(0, 1024, 64):
        store(out + i, zeros(f32x16))
    for block in range(head // 32):
        at = keys + _BLOCK * block
        for part in range(2):
            scales = at + PAGE * part
            s0 = convert(load(scales, f16x16), f32x16)
            s1 = convert(load(scales + 32, f16x16), f32x16)
            codes = at + _CODES + 32 * part
            sums = _block_scores(codes, ahead, queries, head, 32 * block)
            ahead += _BLOCK // 2
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
def _scaled(scales, weights, to):
    """Write the weights [4][64] times the positions' scales."""
    for i in range(0, PAGE, 16):
        s = convert(load(scales + 2 * i, f16x16), f32x16)
        for query in range(4):
            at = 4 * (PAGE * query + i)
            store(to + at, load(weights + at, f32x16) * s)


@njit
def mix4_q4_0(values, ahead, weights, places, sums, width, decays):
    """Add weighted values of a page's positions ``places`` to four outputs."""
    scaled = stack(_WEIGHTS)
    d0, d1, d2, d3 = decays
    wide = 4 * width
    for block in range(width // 32):
        codes = values + _BLOCK * block
        _scaled(codes, weights, scaled)
        codes += _CODES
        at = sums + 128 * block
        a0, b0 = load(at, f32x16) * d0, load(at + wide, f32x16) * d1
        c0, e0 = load(at + 2 * wide, f32x16) * d2, load(at + 3 * wide, f32x16) * d3
        a1, b1 = load(at + 64, f32x16) * d0, load(at + wide + 64, f32x16) * d1
        c1 = load(at + 2 * wide + 64, f32x16) * d2
        e1 = load(at + 3 * wide + 64, f32x16) * d3
        for j in range(places[0], places[1]):
            prefetch_far(ahead)
            ahead += Q4_0
            v0, v1 = _unpacked(codes + 16 * j)
            w = scaled + 4 * j
            p0, p1 = splat(load(w, float32), f32x16), splat(load(w + 256, float32), f32x16)
            p2, p3 = splat(load(w + 512, float32), f32x16), splat(load(w + 768, float32), f32x16)
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
