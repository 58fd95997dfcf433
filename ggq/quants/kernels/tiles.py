"""Many tokens: 32 rows x 256 columns are unpacked once into the L1 cache and used for every token.

The tile is interleaved so that a vector lane is a row: a 64-byte vector holds 4 columns of 16 rows,
and one broadcast of 4 activation codes multiplies them all. Same ``unpack`` as in blocks.py.
"""

from numba import float32, int32, int64
from numba.extending import overload

from ggq.jit import njit
from ggq.quants.kernels import abi
from ggq.quants.kernels.blocks import copy_tail, finish
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
def _load8(at):
    return (
        load(at, u8x64),
        load(at + 64, u8x64),
        load(at + 128, u8x64),
        load(at + 192, u8x64),
        load(at + 256, u8x64),
        load(at + 320, u8x64),
        load(at + 384, u8x64),
        load(at + 448, u8x64),
    )


@njit
def _dot8(w, x, dot):
    a = dot(zeros(i32x16), w[0], x[0])
    a = dot(a, w[1], x[1])
    a = dot(a, w[2], x[2])
    a = dot(a, w[3], x[3])
    a = dot(a, w[4], x[4])
    a = dot(a, w[5], x[5])
    a = dot(a, w[6], x[6])
    return convert(dot(a, w[7], x[7]), f32x16)


@njit
def _dot4(w0, w1, w2, w3, x0, x1, x2, x3, dot):
    a = dot(dot(zeros(i32x16), w0, x0), w1, x1)
    return convert(dot(dot(a, w2, x2), w3, x3), f32x16)


def _scaled(w, x, tile, sub, scale, sums32, sums16, total, dot, kind):
    """Return total + scale * (products of 32 columns) - minimums, for 16 rows of one token."""
    raise NotImplementedError


@overload(_scaled, jit_options={"forceinline": True})
def _overload_scaled(w, x, tile, sub, scale, sums32, sums16, total, dot, kind):
    if kind.instance_type.lanes == 8:  # scales per 32 columns

        def per_32(w, x, tile, sub, scale, sums32, sums16, total, dot, kind):
            weight_scale = load(tile + _SCALES + 64 * sub, f32x16)
            total = fma(_dot8(w, x, dot) * weight_scale, splat(scale, f32x16), total)
            low = splat(-load(sums32 + 4 * sub, float32), f32x16)
            return fma(load(tile + _MINS + 64 * sub, f32x16), low, total)

        return per_32

    def per_16(w, x, tile, sub, scale, sums32, sums16, total, dot, kind):
        a = _dot4(w[0], w[1], w[2], w[3], x[0], x[1], x[2], x[3], dot)
        b = _dot4(w[4], w[5], w[6], w[7], x[4], x[5], x[6], x[7], dot)
        both = a * load(tile + _SCALES + 128 * sub, f32x16)
        both = fma(b, load(tile + _SCALES + 128 * sub + 64, f32x16), both)
        total = fma(both, splat(scale, f32x16), total)
        low = splat(-load(sums16 + 8 * sub, float32), f32x16)
        total = fma(load(tile + _MINS + 128 * sub, f32x16), low, total)
        low = splat(-load(sums16 + 8 * sub + 4, float32), f32x16)
        return fma(load(tile + _MINS + 128 * sub + 64, f32x16), low, total)

    return per_16


@njit
def _multiply_tile(tile, n_subs, token, step, n, block, n_tokens, totals, dot, kind):
    """Add the products of a 32 x 256 tile and ``n_tokens`` tokens to their running totals."""
    other = tile + _GROUP_TILE
    for sub in range(n_subs):  # 32 columns: 16 weight vectors stay in registers over all tokens
        low, high = _load8(tile + 512 * sub), _load8(other + 512 * sub)
        at, total = token, totals
        for _ in range(n_tokens):
            codes = at + _SUPER * block + 32 * sub
            x = (
                _column(codes),
                _column(codes + 4),
                _column(codes + 8),
                _column(codes + 12),
                _column(codes + 16),
                _column(codes + 20),
                _column(codes + 24),
                _column(codes + 28),
            )
            scale = load(at + n + 32 * block + 4 * sub, float32)
            s32 = at + n + n // 8 + 32 * block
            s16 = at + n + n // 4 + 64 * block
            a = _scaled(low, x, tile, sub, scale, s32, s16, load(total, f32x16), dot, kind)
            b = _scaled(high, x, other, sub, scale, s32, s16, load(total + 64, f32x16), dot, kind)
            store(total, a)
            store(total + 64, b)
            at += step
            total += 128


@njit
def _write(args, row, n_valid, token, total):
    """Write one token's 16 outputs of a group, with bias and residual."""
    if n_valid < 16:
        for r in range(n_valid):
            finish(args, row + r, token, load(total + 4 * r, float32))
        return
    value = load(total, f32x16)
    offset = token * load(args + abi.OUTPUT_STRIDE, int64) + 4 * row
    bias, residual = load(args + abi.BIAS, int64), load(args + abi.RESIDUAL, int64)
    if bias:
        value = value + load(bias + 4 * row, f32x16)
    if residual:
        value = value + load(residual + offset, f32x16)
    store(load(args + abi.OUTPUT, int64) + offset, value)


@njit
def many_tokens(args, first, last, unpack, dot, stride, kind):
    """Multiply rows [16 first, 16 last) by any number of tokens, two groups of 16 rows at a time."""
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
                _write(args, row, valid, start + t, totals + 128 * t)
                if valid_next:
                    _write(args, row + 16, valid_next, start + t, totals + 128 * t + 64)
