"""Prefill with a dot instruction: 32 rows x 256 columns are unpacked once and used for all tokens.

The tile is interleaved so that a vector lane is a row: a 64-byte vector holds 4 columns of 16 rows,
and one broadcast of 4 activation codes multiplies them all. Same ``unpack`` as in blocks.py, same
arithmetic on the integer sums (sums.py).
"""

from ggq.jit import njit
from ggq.quants.kernels import abi, sums
from ggq.quants.kernels.blocks import copy_tail, finish_group
from ggq.simd import (
    bitcast,
    f32x8,
    f32x16,
    float32,
    fma,
    i8x64,
    i32x16,
    int32,
    int64,
    load,
    overload,
    prefetch_far,
    splat,
    stack,
    store,
    transpose16,
    u8x64,
    zeros,
)

_SUPER = abi.SUPER
_RAW = 256  # bytes of one unpacked row's codes; scales and minimums of all rows stand behind them
_RAW_SCALES, _RAW_MINS, _BOUNCE = 16 * _RAW, 16 * _RAW + 1024, 16 * _RAW + 2048
# A group's tile: codes [4 columns][16 rows], then what sums.py needs.
_SCALES = 16 * _SUPER
_GROUP_TILE = _SCALES + sums.BYTES
# One token's 256 columns: codes, 8 scales, 8 or 16 of sums.token_sums.
_TOKEN_SCALES, _TOKEN_SUMS, _TOKEN = _SUPER, _SUPER + 32, 384
# Of one pass: running totals (128 KiB) and the tokens' columns (96 KiB) stay in the L2 cache.
_GROUPS, _TOKENS = 8, 256
_GROUP_TOTALS = 64 * _TOKENS
_NEAR = 32  # tokens whose columns and totals stay in the L1 cache for a whole tile


@njit
def _unpack_group(row, row_bytes, n_valid, stride, tail, raw, tile, unpack, centre, kind):
    """Unpack 256 columns of 16 rows (the last valid one repeated) and interleave them."""
    bounce = raw + _BOUNCE
    for r in range(16):
        at = row + min(r, n_valid - 1) * row_bytes
        for line in range(stride, 2 * stride, 64):
            prefetch_far(at + line)
        if tail:
            copy_tail(at, tail, bounce)
            at = bounce
        c0, c1, c2, c3, scales, mins = unpack(at)
        to = raw + r * _RAW
        store(to, c0)
        store(to + 64, c1)
        store(to + 128, c2)
        store(to + 192, c3)
        sums.put_row(raw + _RAW_SCALES, r, scales)
        sums.put_row(raw + _RAW_MINS, r, mins)
    for part in range(4):
        transpose16(raw + 64 * part, int64(_RAW), tile + 1024 * part, int64(64))
    sums.put_scales(raw + _RAW_SCALES, raw + _RAW_MINS, tile + _SCALES, centre, kind)


@njit
def _prepare(token, n, block, to, centre, kind):
    """Copy what the tiles need of a token's 256 columns to one place."""
    codes = token + _SUPER * block
    for i in range(0, _SUPER, 64):
        store(to + i, load(codes + i, u8x64))
    store(to + _TOKEN_SCALES, load(token + n + 32 * block, f32x8))
    store(to + _TOKEN_SUMS, sums.token_sums(token, n, block, centre, kind))


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
def _starts(x, y, lane, centre):
    a = sums.tile_start(x + _TOKEN_SUMS + 4 * lane, centre)
    b = sums.tile_start(y + _TOKEN_SUMS + 4 * lane, centre)
    return a, a, b, b


@njit
def _weighted(products, tile, lane, x, y, centre):
    """Return sums.weighted of one lane of scales, of 32 rows and two tokens."""
    scales, others = tile + _SCALES, tile + _GROUP_TILE + _SCALES
    x, y = x + _TOKEN_SUMS + 4 * lane, y + _TOKEN_SUMS + 4 * lane
    p, q, r, s = products
    return (
        sums.tile_weighted(p, scales, lane, x, centre),
        sums.tile_weighted(q, others, lane, x, centre),
        sums.tile_weighted(r, scales, lane, y, centre),
        sums.tile_weighted(s, others, lane, y, centre),
    )


@njit
def _add(totals, values, x, y, sub):
    """Return the totals with the weighted sums of 32 columns times the tokens' scales added."""
    x_scale = splat(load(x + _TOKEN_SCALES + 4 * sub, float32), f32x16)
    y_scale = splat(load(y + _TOKEN_SCALES + 4 * sub, float32), f32x16)
    a, b, c, d = totals
    p, q, r, s = values
    return fma(p, x_scale, a), fma(q, x_scale, b), fma(r, y_scale, c), fma(s, y_scale, d)


def _two_tokens(w, tile, sub, x, y, totals, dot, centre, kind):
    """Return the four running totals plus 32 columns of 32 rows and the tokens at x and y."""
    raise NotImplementedError


@overload(_two_tokens, jit_options={"forceinline": True})
def _overload_two_tokens(w, tile, sub, x, y, totals, dot, centre, kind):
    if kind.instance_type.lanes == 8:

        def per_32(w, tile, sub, x, y, totals, dot, centre, kind):
            at = 32 * sub
            acc = _columns16(_starts(x, y, sub, centre), w[0], w[1], x + at, y + at, dot)
            acc = _columns16(acc, w[2], w[3], x + at + 16, y + at + 16, dot)
            return _add(totals, _weighted(acc, tile, sub, x, y, centre), x, y, sub)

        return per_32

    def per_16(w, tile, sub, x, y, totals, dot, centre, kind):
        at, lane = 32 * sub, 2 * sub
        acc = _columns16(_starts(x, y, lane, centre), w[0], w[1], x + at, y + at, dot)
        a, b, c, d = _weighted(acc, tile, lane, x, y, centre)
        at, lane = at + 16, lane + 1
        acc = _columns16(_starts(x, y, lane, centre), w[2], w[3], x + at, y + at, dot)
        p, q, r, s = _weighted(acc, tile, lane, x, y, centre)
        return _add(totals, (a + p, b + q, c + r, d + s), x, y, sub)

    return per_16


@njit
def _weights16(at):
    return load(at, u8x64), load(at + 64, u8x64), load(at + 128, u8x64), load(at + 192, u8x64)


@njit
def _multiply_tile(tile, n_subs, prepared, n_tokens, totals, dot, centre, kind):
    """Add the products of a 32 x 256 tile and ``n_tokens`` tokens to their running totals.

    An odd last token is computed twice from the same total, which changes nothing.
    """
    other = tile + _GROUP_TILE
    for near in range(0, n_tokens, _NEAR):
        end = min(near + _NEAR, n_tokens)
        for sub in range(n_subs):  # 16 weight vectors stay in registers over these tokens
            at, beside = tile + 512 * sub, other + 512 * sub
            w = (_weights16(at), _weights16(beside), _weights16(at + 256), _weights16(beside + 256))
            for t in range(near, end, 2):
                x, x_total = prepared + t * _TOKEN, totals + 64 * t
                odd = t + 1 == n_tokens
                y, y_total = (x, x_total) if odd else (x + _TOKEN, x_total + 64)
                now = (
                    load(x_total, f32x16),
                    load(x_total + _GROUP_TOTALS, f32x16),
                    load(y_total, f32x16),
                    load(y_total + _GROUP_TOTALS, f32x16),
                )
                a, b, c, d = _two_tokens(w, tile, sub, x, y, now, dot, centre, kind)
                store(x_total, a)
                store(x_total + _GROUP_TOTALS, b)
                store(y_total, c)
                store(y_total + _GROUP_TOTALS, d)


@njit
def prefill(args, first, last, unpack, dot, stride, kind, centre):
    """Multiply rows [16 first, 16 last) by any number of tokens, two groups of rows at a time.

    ``centre``: the minimum is this many scales; 0 where the type has minimums of its own.
    """
    n_rows, n_cols = args.n_rows, args.n_cols
    row_bytes, weights = args.row_bytes, args.weights
    step, tokens = args.input_stride, args.input
    n_tokens = load(args.state, int64)
    n_full = n_cols // _SUPER
    tail = row_bytes - n_full * stride
    n_blocks = n_full + (1 if tail else 0)
    n = n_blocks * _SUPER
    raw, tile, prepared, totals = stack(6528), stack(14336), stack(98304), stack(131072)
    for lowest in range(first, last, _GROUPS):
        n_groups = min(_GROUPS, last - lowest)
        for start in range(0, n_tokens, _TOKENS):
            count = min(_TOKENS, n_tokens - start)
            for g in range(n_groups + n_groups % 2):
                for t in range(count):
                    store(totals + g * _GROUP_TOTALS + 64 * t, zeros(f32x16))
            for block in range(n_blocks):
                cut = tail if block == n_full else 0
                n_subs = (n_cols - n_full * _SUPER) // 32 if cut else _SUPER // 32
                for t in range(count):
                    token = tokens + (start + t) * step
                    _prepare(token, n, block, prepared + t * _TOKEN, centre, kind)
                for g in range(0, n_groups, 2):
                    for i in range(2):  # a missing second group repeats the last row
                        row = min((lowest + g + i) * abi.GROUP, n_rows - 1)
                        at = weights + row * row_bytes + block * stride
                        rows = min(16, n_rows - row)
                        to = tile + i * _GROUP_TILE
                        _unpack_group(
                            at, row_bytes, rows, stride, cut, raw, to, unpack, centre, kind
                        )
                    to = totals + g * _GROUP_TOTALS
                    _multiply_tile(tile, n_subs, prepared, count, to, dot, centre, kind)
            for t in range(count):  # a token's rows lie together
                for g in range(n_groups):
                    row, total = (lowest + g) * abi.GROUP, totals + g * _GROUP_TOTALS + 64 * t
                    finish_group(args, row, min(16, n_rows - row), start + t, total)
