"""Decoding: dot products on native blocks for a few tokens, the skeleton of all block types.

A type brings ``unpack(address)``, which reads 256 weights and returns four u8x64 code vectors in
column order, the scales and the minimums as float32 vectors (f32x8: one lane per 32 columns,
f32x16: one per 16), so that a weight is ``scale * code - minimum``. It knows neither threads nor
plans.
"""

from ggq.jit import njit
from ggq.quants.kernels import abi, sums
from ggq.simd import (
    convert,
    even_and_odd,
    f32x16,
    float32,
    fma,
    i8x64,
    i32x16,
    int64,
    join,
    lane,
    load,
    overload,
    prefetch,
    splat,
    stack,
    store,
    sums_of_2,
    sums_of_4,
    sums_of_8,
    transpose8,
    u8x16,
    u8x64,
    u32x16,
    uint8,
    uint16,
    zeros,
)

_SUPER = abi.SUPER
_AHEAD = 4  # blocks to prefetch ahead: 16 rows are more streams than the hardware follows
_TOKENS = 4  # share an unpacked block
_LOW, _PREPARED = 256, 320  # a prepared token: 256 codes, 16 lanes of sums.token_sums
_ROWS = 8 * 64  # bytes of a token's weighted sums: 8 of rows r and r + 8, r = 0 .. 7
SCRATCH = 384  # at least 256 weights of any type in bytes, in whole vectors


@njit
def copy_tail(source, nbytes, target):
    """Copy a row's last, incomplete super-block and pad it with zero blocks (their scale is 0)."""
    for i in range(0, SCRATCH, 64):
        store(target + i, zeros(u8x64))
    for i in range(0, nbytes - 1, 2):  # all blocks but MXFP4's have an even size
        store(target + i, load(source + i, uint16))
    if nbytes % 2:
        store(target + nbytes - 1, load(source + nbytes - 1, uint8))


@njit
def finish(args, row, token, value):
    """Store one output with bias and residual."""
    offset = token * args.output_stride + 4 * row
    bias = args.bias
    if bias:
        value += load(bias + 4 * row, float32)
    residual = args.residual
    if residual:
        value += load(residual + offset, float32)
    store(args.output + offset, value)


@njit
def finish_group(args, row, n_valid, token, total):
    """Write one token's 16 outputs, float32 at ``total``, with bias and residual."""
    if n_valid < 16:
        for r in range(n_valid):
            finish(args, row + r, token, load(total + 4 * r, float32))
        return
    value = load(total, f32x16)
    offset = token * args.output_stride + 4 * row
    bias, residual = args.bias, args.residual
    if bias:
        value = value + load(bias + 4 * row, f32x16)
    if residual:
        value = value + load(residual + offset, f32x16)
    store(args.output + offset, value)


@njit
def _tail_at(at, stride, tail, scratch, end):
    """Return where to read a row's last super-block: nothing behind the tensor may be read."""
    if at + stride > end:
        copy_tail(at, tail, scratch)
        return scratch
    return at


@njit
def _products(codes, x, dot, columns):
    """Return the sums of 8 products of 256 columns, both sides in the order of even_and_odd.

    Of up to 128 ``columns`` the second half is not looked at.
    """
    first = dot(zeros(i32x16), codes[0], load(x, i8x64))
    first = dot(first, codes[1], load(x + 64, i8x64))
    second = zeros(i32x16)
    if columns > 128:
        second = dot(second, codes[2], load(x + 128, i8x64))
        second = dot(second, codes[3], load(x + 192, i8x64))
    return first, second


def _weighted(first, second, a, b, low, centre):
    """Return the weighted sums of 32 columns each, 8 of row ``a`` and 8 of row ``b``.

    ``first`` and ``second``: their products with a token; ``low``: the address of its token_sums.
    """
    raise NotImplementedError


@overload(_weighted, jit_options={"forceinline": True})
def _overload_weighted(first, second, a, b, low, centre):
    if a[4].lanes == 8:

        def per_32(first, second, a, b, low, centre):
            scales, mins = join(a[4], b[4]), join(a[5], b[5])
            exact = sums_of_8(first, second)
            return sums.weighted(exact, scales, mins, load(low, i32x16), centre)

        return per_32

    def per_16(first, second, a, b, low, centre):
        low = load(low, i32x16)
        x = sums.weighted(sums_of_4(first), a[4], a[5], low, centre)
        y = sums.weighted(sums_of_4(second), b[4], b[5], low, centre)
        return sums_of_2(x, y)

    return per_16


@njit
def _multiply_pair(here, there, to, x, columns, unpack, dot, centre):
    """Leave the weighted sums of two rows with one token at ``to``."""
    a = unpack(here)
    first = _products(even_and_odd(a[:4]), x, dot, columns)
    b = unpack(there)
    second = _products(even_and_odd(b[:4]), x, dot, columns)
    store(to, _weighted(first, second, a, b, x + _LOW, centre))


@njit
def _multiply_pair_by_several(here, there, to, x, count, unpack, dot, centre):
    """The same with ``count`` tokens: the rows are unpacked once."""
    a, b = unpack(here), unpack(there)
    codes, others = even_and_odd(a[:4]), even_and_odd(b[:4])
    for _ in range(count):
        first = _products(codes, x, dot, int64(_SUPER))
        second = _products(others, x, dot, int64(_SUPER))
        store(to, _weighted(first, second, a, b, x + _LOW, centre))
        x, to = x + _PREPARED, to + _ROWS


@njit
def _prepare(token, n, block, to, centre, kind):
    """Leave a token's 256 codes as _products wants them, and its sums.token_sums in 16 lanes."""
    x = token + _SUPER * block
    codes = load(x, i8x64), load(x + 64, i8x64), load(x + 128, i8x64), load(x + 192, i8x64)
    codes = even_and_odd(codes)
    store(to, codes[0])
    store(to + 64, codes[1])
    store(to + 128, codes[2])
    store(to + 192, codes[3])
    low = sums.token_sums(token, n, block, centre, kind)
    store(to + _LOW, low)
    store(to + _LOW + 4 * (len(low) % 16), low)


@njit
def _multiply_block(at, n_valid, shape, block, prepared, count, rows, unpack, dot, centre):
    """Leave the weighted sums of 256 columns of up to 16 rows with each token as rows r | r + 8."""
    n_cols, row_bytes, n_full, stride, tail, end, scratch = shape
    columns = n_cols - block * _SUPER
    ahead = _AHEAD * stride
    if block + _AHEAD >= n_full:  # in the next group's rows
        ahead += abi.GROUP * row_bytes - n_full * stride
    for r in range(min(8, n_valid)):
        here = at + r * row_bytes + block * stride
        there = here + (8 if r + 8 < n_valid else 0) * row_bytes
        for line in range(0, stride, 64):
            prefetch(here + ahead + line)
            prefetch(there + ahead + line)
        if block == n_full:
            here = _tail_at(here, stride, tail, scratch, end)
            there = _tail_at(there, stride, tail, scratch + SCRATCH, end)
        to = rows + 64 * r
        if count == 1:
            _multiply_pair(here, there, to, prepared, columns, unpack, dot, centre)
        else:
            _multiply_pair_by_several(here, there, to, prepared, count, unpack, dot, centre)


@njit
def _add_rows(total, rows, n_subs, scales):
    """Return the total of 16 rows with their weighted sums of ``n_subs`` times 32 columns added."""
    transpose8(rows, rows)
    for sub in range(n_subs):
        scale = splat(load(scales + 4 * sub, float32), f32x16)
        total = fma(load(rows + 64 * sub, f32x16), scale, total)
    return total


@njit
def decode_tokens(args, first, last, unpack, dot, stride, kind, centre):
    """Multiply rows [16 first, 16 last) by up to a handful of tokens.

    ``stride``: bytes of 256 weights; ``kind``: f32x8 or f32x16, the shape of the type's scales;
    ``centre``: see tiles.prefill_tokens.
    """
    n_rows, n_cols = args.n_rows, args.n_cols
    row_bytes, weights = args.row_bytes, args.weights
    step, tokens = args.input_stride, args.input
    n_tokens = load(args.state, int64)
    n_full = n_cols // _SUPER
    tail = row_bytes - n_full * stride
    n_blocks = n_full + (1 if tail else 0)
    n = n_blocks * _SUPER
    shape = (n_cols, row_bytes, n_full, stride, tail, weights + n_rows * row_bytes, stack(768))
    prepared, rows, totals = stack(1280), stack(2048), stack(256)
    for item in range(first, last):
        row = item * abi.GROUP
        n_valid, at = min(int64(abi.GROUP), n_rows - row), weights + row * row_bytes
        for t in range(0, n_tokens, _TOKENS):
            token, count = tokens + t * step, min(_TOKENS, n_tokens - t)
            for i in range(count):
                store(totals + 64 * i, zeros(f32x16))
            for block in range(n_blocks):
                for i in range(count):
                    _prepare(token + i * step, n, block, prepared + _PREPARED * i, centre, kind)
                _multiply_block(
                    at, n_valid, shape, block, prepared, count, rows, unpack, dot, centre
                )
                n_subs = min(8, (n_cols - block * _SUPER) // 32)
                for i in range(count):
                    scales, total = token + i * step + n + 32 * block, load(totals + 64 * i, f32x16)
                    store(totals + 64 * i, _add_rows(total, rows + _ROWS * i, n_subs, scales))
            for i in range(count):
                finish_group(args, row, n_valid, t + i, totals + 64 * i)


@njit
def dequantize_rows(args, first, last, unpack, stride):
    """Decode the rows whose int64 numbers stand at INPUT; item i writes output row i as float32."""
    n_cols, row_bytes = args.n_cols, args.row_bytes
    ids, n_full = args.input, n_cols // _SUPER
    tail = row_bytes - n_full * stride
    scratch, values = stack(384), stack(1024)
    for item in range(first, last):
        row = args.weights + load(ids + 8 * item, int64) * row_bytes
        out = args.output + item * args.output_stride
        for block in range(n_full):
            _decode_block(unpack(row + stride * block), out + 4 * _SUPER * block)
        if tail:
            copy_tail(row + stride * n_full, tail, scratch)
            _decode_block(unpack(scratch), values)
            for i in range(n_cols - n_full * _SUPER):
                store(out + 4 * (n_full * _SUPER + i), load(values + 4 * i, float32))


@njit
def _decode_block(unpacked, out):
    """Write 256 values."""
    c0, c1, c2, c3, scales, mins = unpacked
    codes = stack(256)
    store(codes, c0)
    store(codes + 64, c1)
    store(codes + 128, c2)
    store(codes + 192, c3)
    share = 256 // len(scales)
    for i in range(0, 256, 16):
        code = convert(convert(load(codes + i, u8x16), u32x16), f32x16)
        scale = splat(lane(scales, i // share), f32x16)
        store(out + 4 * i, scale * code - splat(lane(mins, i // share), f32x16))
