"""Many tokens: 32 rows x 256 columns are unpacked once into the L1 cache and used for every token.

The tile is interleaved so that a vector lane is a row: a 64-byte vector holds 4 columns of 16 rows,
and one broadcast of 4 activation codes multiplies them all. Same ``unpack`` as in blocks.py.
"""

from numba import float32, int32, int64
from numba.extending import overload

from ggq.jit import njit
from ggq.quants.kernels import abi
from ggq.quants.kernels.blocks import copy_tail, finish_group
from ggq.simd import (
    bitcast,
    convert,
    f32x16,
    fma,
    i8x64,
    i32x16,
    load,
    splat,
    stack,
    store,
    transpose16,
    u8x64,
    zeros,
)

_SUPER = abi.SUPER
_RAW = 384  # bytes of one unpacked row: 256 codes, 64 of scales, 64 of minimums
_SCALES = 16 * _SUPER  # offset of the scales in a group's tile: [lane of scales][16 rows] float32
_MINS = _SCALES + 16 * 64
_GROUP_TILE = _MINS + 16 * 64
_TOKENS = 128  # tokens per pass: their running sums (2 groups x 128 x 64 B) stay in the cache


@njit
def _unpack_group(row, row_bytes, n_valid, tail, raw, tile, unpack):
    """Unpack 256 columns of 16 rows (the last valid one repeated) and interleave them."""
    bounce = raw + 16 * _RAW
    for r in range(16):
        at = row + min(r, n_valid - 1) * row_bytes
        if tail:
            copy_tail(at, tail, bounce)
            at = bounce
        c0, c1, c2, c3, scales, mins = unpack(at)
        to = raw + r * _RAW
        store(to, c0)
        store(to + 64, c1)
        store(to + 128, c2)
        store(to + 192, c3)
        store(to + 256, scales)
        store(to + 320, mins)
    for part in range(4):
        transpose16(raw + 64 * part, int64(_RAW), tile + 1024 * part, int64(64))
    transpose16(raw + 256, int64(_RAW), tile + _SCALES, int64(64))
    transpose16(raw + 320, int64(_RAW), tile + _MINS, int64(64))


@njit
def _column(address):
    """Broadcast 4 activation codes to all 16 lanes."""
    return bitcast(splat(load(address, int32), i32x16), i8x64)


@njit
def _columns4(acc, low, high, x, y, dot):
    """Four columns of 32 rows and two tokens: four independent chains, so that no unit waits."""
    a, b, c, d = acc
    column, other = _column(x), _column(y)
    return (
        dot(a, low, column),
        dot(b, high, column),
        dot(c, low, other),
        dot(d, high, other),
    )


@njit
def _columns16(acc, low, high, x, y, dot):
    acc = _columns4(acc, low[0], high[0], x, y, dot)
    acc = _columns4(acc, low[1], high[1], x + 4, y + 4, dot)
    acc = _columns4(acc, low[2], high[2], x + 8, y + 8, dot)
    return _columns4(acc, low[3], high[3], x + 12, y + 12, dot)


@njit
def _add_scaled(total, products, tile, lane, scale):
    """Return total + products * (scales of 16 rows) * (the token's scale)."""
    both = convert(products, f32x16) * load(tile + _SCALES + 64 * lane, f32x16)
    return fma(both, scale, total)


@njit
def _subtract_mins(total, tile, lane, low):
    return fma(load(tile + _MINS + 64 * lane, f32x16), splat(-low, f32x16), total)


@njit
def _token_scale(token, n, column):
    return splat(load(token + n + column // 8, float32), f32x16)


@njit
def _four_totals(x_total, y_total):
    return (
        load(x_total, f32x16),
        load(x_total + 64, f32x16),
        load(y_total, f32x16),
        load(y_total + 64, f32x16),
    )


@njit
def _scale_part(totals, products, tile, lane, x_scale, y_scale, x_low, y_low):
    """Scale the integer products of one lane of scales and subtract its minimums."""
    other = tile + _GROUP_TILE
    a, b, c, d = totals
    p, q, r, s = products
    a = _subtract_mins(_add_scaled(a, p, tile, lane, x_scale), tile, lane, x_low)
    b = _subtract_mins(_add_scaled(b, q, other, lane, x_scale), other, lane, x_low)
    c = _subtract_mins(_add_scaled(c, r, tile, lane, y_scale), tile, lane, y_low)
    d = _subtract_mins(_add_scaled(d, s, other, lane, y_scale), other, lane, y_low)
    return a, b, c, d


def _two_tokens(w, tile, column, x, y, n, totals, dot, kind):
    """Return the four running totals plus 32 columns of 32 rows and the tokens at x and y."""
    raise NotImplementedError


@overload(_two_tokens, jit_options={"forceinline": True})
def _overload_two_tokens(w, tile, column, x, y, n, totals, dot, kind):
    if kind.instance_type.lanes == 8:  # scales per 32 columns

        def per_32(w, tile, column, x, y, n, totals, dot, kind):
            z = zeros(i32x16)
            low, high, low2, high2 = w
            acc = _columns16((z, z, z, z), low, high, x + column, y + column, dot)
            acc = _columns16(acc, low2, high2, x + column + 16, y + column + 16, dot)
            sums = n + n // 8 + column // 8
            x_low, y_low = load(x + sums, float32), load(y + sums, float32)
            x_scale, y_scale = _token_scale(x, n, column), _token_scale(y, n, column)
            lane = column % _SUPER // 32
            return _scale_part(totals, acc, tile, lane, x_scale, y_scale, x_low, y_low)

        return per_32

    def per_16(w, tile, column, x, y, n, totals, dot, kind):
        z = zeros(i32x16)
        low, high, low2, high2 = w
        x_scale, y_scale = _token_scale(x, n, column), _token_scale(y, n, column)
        sums, lane = n + n // 4 + column // 4, column % _SUPER // 16
        acc = _columns16((z, z, z, z), low, high, x + column, y + column, dot)
        x_low, y_low = load(x + sums, float32), load(y + sums, float32)
        totals = _scale_part(totals, acc, tile, lane, x_scale, y_scale, x_low, y_low)
        acc = _columns16((z, z, z, z), low2, high2, x + column + 16, y + column + 16, dot)
        x_low, y_low = load(x + sums + 4, float32), load(y + sums + 4, float32)
        return _scale_part(totals, acc, tile, lane + 1, x_scale, y_scale, x_low, y_low)

    return per_16


@njit
def _weights16(at):
    return load(at, u8x64), load(at + 64, u8x64), load(at + 128, u8x64), load(at + 192, u8x64)


@njit
def _multiply_tile(tile, n_subs, token, step, n, block, n_tokens, totals, dot, kind):
    """Add the products of a 32 x 256 tile and ``n_tokens`` tokens to their running totals.

    An odd last token is computed twice from the same total, which changes nothing.
    """
    other = tile + _GROUP_TILE
    for sub in range(n_subs):  # 32 columns: 16 weight vectors stay in registers over all tokens
        at, beside = tile + 512 * sub, other + 512 * sub
        w = (_weights16(at), _weights16(beside), _weights16(at + 256), _weights16(beside + 256))
        column = block * _SUPER + 32 * sub
        for t in range(0, n_tokens, 2):
            x, x_total = token + t * step, totals + 128 * t
            odd = t + 1 == n_tokens
            y, y_total = (x, x_total) if odd else (x + step, x_total + 128)
            now = _four_totals(x_total, y_total)
            a, b, c, d = _two_tokens(w, tile, column, x, y, n, now, dot, kind)
            store(x_total, a)
            store(x_total + 64, b)
            store(y_total, c)
            store(y_total + 64, d)


@njit
def many_tokens(args, first, last, unpack, dot, stride, kind):
    """Multiply rows [16 first, 16 last) by any number of tokens, two groups of rows at a time."""
    n_rows, n_cols = load(args + abi.N_ROWS, int64), load(args + abi.N_COLS, int64)
    row_bytes, weights = load(args + abi.ROW_BYTES, int64), load(args + abi.WEIGHTS, int64)
    step, tokens = load(args + abi.INPUT_STRIDE, int64), load(args + abi.INPUT, int64)
    n_tokens = load(load(args + abi.STATE, int64), int64)
    n_full = n_cols // _SUPER
    tail = row_bytes - n_full * stride
    n_blocks = n_full + (1 if tail else 0)
    n = n_blocks * _SUPER
    raw, tile, totals = stack(6528), stack(12288), stack(16384)
    for group in range(first, last, 2):
        row = group * abi.GROUP
        valid = min(16, n_rows - row)
        valid_next = max(0, min(16, n_rows - row - 16)) if group + 1 < last else 0
        next_row = row + 16 if valid_next else row
        for start in range(0, n_tokens, _TOKENS):
            count = min(_TOKENS, n_tokens - start)
            for i in range(0, count * 128, 64):
                store(totals + i, zeros(f32x16))
            for block in range(n_blocks):
                cut = tail if block == n_full else 0
                at = weights + row * row_bytes + block * stride
                _unpack_group(at, row_bytes, valid, cut, raw, tile, unpack)
                at = weights + next_row * row_bytes + block * stride
                rows = valid_next if valid_next else valid
                _unpack_group(at, row_bytes, rows, cut, raw, tile + _GROUP_TILE, unpack)
                token = tokens + start * step
                n_subs = (n_cols - n_full * _SUPER) // 32 if cut else _SUPER // 32
                _multiply_tile(tile, n_subs, token, step, n, block, count, totals, dot, kind)
            for t in range(count):
                finish_group(args, row, valid, start + t, totals + 128 * t)
                if valid_next:
                    at = totals + 128 * t + 64
                    finish_group(args, row + 16, valid_next, start + t, at)
