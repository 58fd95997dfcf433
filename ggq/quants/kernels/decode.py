"""Decoding: dot products on native blocks for a few tokens, the skeleton of all block types.

Two rows at a time are read as they lie in memory. Their codes are "turned", so that a lane sums up
products of the same 16 columns: ``turn`` puts 16 columns of each 64 into the vectors' lane i of
four, quarter by quarter. What follows is the arithmetic of sums.py, lanes in this order:
    scales per 16 columns, and codes: groups 0, 4, 8, 12, then 1, 5, 9, 13, and so on
    scales per 32 columns: 0, 2, 4, 6, then 1, 3, 5, 7
It knows neither threads nor plans.
"""

from ggq.jit import njit
from ggq.quants.kernels import abi, sums
from ggq.quants.kernels.blocks import SCRATCH, copy_tail, finish_group
from ggq.quants.kernels.turned import turn_lanes
from ggq.simd import (
    bitcast,
    columns8,
    f32x16,
    float32,
    fma,
    high_half,
    i8x64,
    i32x16,
    int64,
    join,
    load,
    low_half,
    overload,
    prefetch,
    shuffle,
    splat,
    stack,
    store,
    turn,
    u8x64,
    u32x16,
    zeros,
)

_SUPER = abi.SUPER
_AHEAD = 6144  # bytes to prefetch ahead: the hardware stops at each 4 KiB page
_WHILE_ADDING = 128  # bytes of each of two streams to prefetch while a block's sums are added
_TOKENS = 8  # share an unpacked block
_STRIP = 32  # blocks x tokens whose weighted sums wait, 16 KiB
_ROWS = 8 * 64  # bytes of a block's weighted sums with a token: of rows r and r + 8, r = 0 .. 7
_LOW, _PREPARED = 256, 320  # a prepared token: 256 codes, 16 lanes of sums.token_sums

_even_quarters = shuffle([*range(4), *range(8, 12), *range(16, 20), *range(24, 28)])
_odd_quarters = shuffle([*range(4, 8), *range(12, 16), *range(20, 24), *range(28, 32)])
_middle_exchanged = shuffle([*range(4), *range(8, 12), *range(4, 8), *range(12, 16)])
_even_lanes, _odd_lanes = shuffle(range(0, 32, 2)), shuffle(range(1, 32, 2))
_first_of_four = shuffle([i // 4 * 4 for i in range(16)])
_two_of_four = shuffle([i // 4 * 4 + i % 2 for i in range(16)])
_TURNED_8 = [0, 2, 4, 6, 1, 3, 5, 7]
_turned_8 = shuffle(_TURNED_8)
_turned_pair = shuffle([*_TURNED_8, *[8 + i for i in _TURNED_8]])


@njit
def _codes(x):
    return load(x, i8x64), load(x + 64, i8x64), load(x + 128, i8x64), load(x + 192, i8x64)


@njit
def _joined(a, b, halves):
    """Return 8 sums of two lanes of ``a`` and 8 of ``b``: of both halves, or of quarters."""
    if halves:
        return join(low_half(a), low_half(b)) + join(high_half(a), high_half(b))
    return _even_quarters(a, b) + _odd_quarters(a, b)


def _weighted(first, second, a, b, low, centre, halves):
    """Return the weighted sums of 32 columns each, 8 of row ``a`` and 8 of row ``b``.

    ``first`` and ``second``: their products with a token; ``low``: its token_sums.
    """
    raise NotImplementedError


@overload(_weighted, jit_options={"forceinline": True})
def _overload_weighted(first, second, a, b, low, centre, halves):
    if a[4].lanes == 8:

        def per_32(first, second, a, b, low, centre, halves):
            scales, mins = _turned_pair(a[4], b[4]), _turned_pair(a[5], b[5])
            exact = _joined(first, second, halves)
            return sums.weighted(exact, scales, mins, low, centre)

        return per_32

    def per_16(first, second, a, b, low, centre, halves):
        x = sums.weighted(first, a[4], a[5], low, centre)
        y = sums.weighted(second, b[4], b[5], low, centre)
        return _joined(x, y, halves)

    return per_16


@njit
def _multiply_pair(here, there, to, x, count, turned, dots, centre, halves):
    """Leave the weighted sums of two rows with one token at ``to``; ``count`` is 1."""
    codes = _codes(x)
    a = turned(here)
    first = dots(a[:4], codes)
    b = turned(there)
    second = dots(b[:4], codes)
    store(to, _weighted(first, second, a, b, load(x + _LOW, i32x16), centre, halves))


@njit
def _multiply_by_several(here, there, to, x, count, turned, dots, centre, halves):
    """The same with ``count`` tokens: the rows are unpacked once."""
    a, b = turned(here), turned(there)
    for _ in range(count):
        codes = _codes(x)
        first, second = dots(a[:4], codes), dots(b[:4], codes)
        store(to, _weighted(first, second, a, b, load(x + _LOW, i32x16), centre, halves))
        x, to = x + _PREPARED, to + _ROWS


@njit
def _multiply(here, there, to, x, count, turned, dots, centre, halves):
    if count == 1:
        _multiply_pair(here, there, to, x, 1, turned, dots, centre, halves)
    else:
        _multiply_by_several(here, there, to, x, count, turned, dots, centre, halves)


def _turned_sums(token, n, block, centre, kind):
    """Return sums.token_sums in the order of the turned codes, 16 lanes."""
    raise NotImplementedError


@overload(_turned_sums, jit_options={"forceinline": True})
def _overload_turned_sums(token, n, block, centre, kind):
    if kind.instance_type.lanes == 8:

        def per_32(token, n, block, centre, kind):
            low = sums.token_sums(token, n, block, centre, kind)
            return _turned_pair(low, low)

        return per_32

    def per_16(token, n, block, centre, kind):
        low = sums.token_sums(token, n, block, centre, kind)
        return turn_lanes(low)

    return per_16


@njit
def _ordered(codes, halves):
    dwords = bitcast(codes, u32x16)
    return _middle_exchanged(dwords, dwords) if halves else dwords


@njit
def _prepare(token, n, block, to, kind, centre, halves):
    """Leave a token's 256 codes turned as the weights' are, and their sums."""
    codes = turn(_codes(token + _SUPER * block))
    store(to, _ordered(codes[0], halves))
    store(to + 64, _ordered(codes[1], halves))
    store(to + 128, _ordered(codes[2], halves))
    store(to + 192, _ordered(codes[3], halves))
    store(to + _LOW, _turned_sums(token, n, block, centre, kind))


@njit
def _tail_at(at, stride, tail, scratch, end):
    """Return where to read a row's last super-block: nothing behind the tensor may be read."""
    if at + stride > end:
        copy_tail(at, tail, scratch)
        return scratch
    return at


@njit
def _multiply_strip(strip, count, multiply, turned, dots, centre, halves):
    """Leave the weighted sums of blocks [start, stop) of up to 16 rows with each token at ``rows``.

    The two rows of a pair are eight apart: two streams from memory. ``multiply``: _multiply_pair
    or the one for several; a loop of its own for each has nothing to decide.
    """
    at, n_valid, shape, start, stop, prepared, rows = strip
    row_bytes, n_full, stride, tail, end, scratch = shape
    half = 8 * row_bytes
    for r in range(min(8, n_valid)):
        here, apart = at + r * row_bytes + start * stride, half if r + 8 < n_valid else 0
        x, to = prepared, rows + 64 * r
        left = half - r * row_bytes - start * stride - _AHEAD  # to where the other stream begins
        for block in range(start, stop):
            ahead = here + (_AHEAD if left > 0 else _AHEAD + half)
            left -= stride
            for line in range(0, stride, 64):
                prefetch(ahead + line)
                prefetch(ahead + half + line)
            first, second = here, here + apart
            if block == n_full:
                first = _tail_at(first, stride, tail, scratch, end)
                second = _tail_at(second, stride, tail, scratch + SCRATCH, end)
            multiply(first, second, to, x, count, turned, dots, centre, halves)
            here, x, to = here + stride, x + _PREPARED * count, to + _ROWS * count
        if stop == n_full:  # a tail is multiplied elsewhere or by the next strip
            ahead = here + (_AHEAD if left > 0 else _AHEAD + half)
            for line in range(0, tail, 64):
                prefetch(ahead + line)
                prefetch(ahead + half + line)


@njit
def _fma(total, value, scales, sub):
    return fma(value, splat(load(scales + 4 * sub, float32), f32x16), total)


@njit
def _add_rows(total, rows, n_subs, scales):
    """Return the total of 16 rows with their weighted sums of ``n_subs`` times 32 columns added."""
    a, c, e, g, b, d, f, h = columns8(rows)
    if n_subs < 8:
        total = _fma(total, a, scales, 0)
        total = _fma(total, b, scales, 1) if n_subs > 1 else total
        total = _fma(total, c, scales, 2) if n_subs > 2 else total
        total = _fma(total, d, scales, 3) if n_subs > 3 else total
        total = _fma(total, e, scales, 4) if n_subs > 4 else total
        total = _fma(total, f, scales, 5) if n_subs > 5 else total
        return _fma(total, g, scales, 6) if n_subs > 6 else total
    total = _fma(_fma(total, a, scales, 0), b, scales, 1)
    total = _fma(_fma(total, c, scales, 2), d, scales, 3)
    total = _fma(_fma(total, e, scales, 4), f, scales, 5)
    return _fma(_fma(total, g, scales, 6), h, scales, 7)


@njit
def _collect_tails(at, n_valid, shape, target):
    """Copy the rows' last blocks together: whole super-blocks, each of two or of four rows."""
    row_bytes, n_full, stride, tail, end, _ = shape
    first, last_line = at + n_full * stride, (tail - 1) // 64 * 64
    if first + (n_valid - 1) * row_bytes + last_line + 64 > end:
        for r in range(n_valid):
            copy_tail(first + r * row_bytes, tail, target + r * tail)
        return
    for line in range(last_line, -1, -64):  # what a last line has too much is overwritten
        here, to = first + line, target + line
        for _ in range(n_valid):
            store(to, load(here, u8x64))
            here, to = here + row_bytes, to + tail


@njit
def _repeat(at, share):
    """Repeat a prepared token's first 256 / ``share`` columns: they meet the tails of all rows."""
    for i in range(0, _PREPARED, 64):
        value = load(at + i, i32x16)
        once, twice = _first_of_four(value, value), _two_of_four(value, value)
        store(at + i, once if share == 4 else twice)


@njit
def _add_tails(total, rows, share, scales):
    """Return the total of 16 rows with the weighted sums of their collected tails added."""
    a, b = load(rows, f32x16), load(rows + 64, f32x16)
    even, odd = _even_quarters(a, b), _odd_quarters(a, b)
    if share == 4:
        return _fma(_fma(total, even, scales, 0), odd, scales, 1)
    c, d = load(rows + 128, f32x16), load(rows + 192, f32x16)
    other_even, other_odd = _even_quarters(c, d), _odd_quarters(c, d)
    first, second = _even_lanes(even, other_even), _even_lanes(odd, other_odd)
    third, fourth = _odd_lanes(even, other_even), _odd_lanes(odd, other_odd)
    total = _fma(_fma(total, first, scales, 0), second, scales, 1)
    return _fma(_fma(total, third, scales, 2), fourth, scales, 3)


@njit
def _add_strip(total, rows, step, blocks, n_cols, scales, following):
    """Return a token's totals with blocks [start, stop) added; ``step``: between its blocks.

    Adding reads no weights: ``following`` is asked for meanwhile, so that memory does not rest.
    """
    start, stop = blocks
    ahead, other = following
    for block in range(start, stop):
        n_subs = min(8, (n_cols - block * _SUPER) // 32)
        for line in range(0, _WHILE_ADDING, 64):
            prefetch(ahead + line)
            prefetch(other + line)
        ahead, other = ahead + _WHILE_ADDING, other + _WHILE_ADDING
        total = _add_rows(total, rows + step * (block - start), n_subs, scales + 32 * block)
    return total


@njit
def _following(at, row_bytes):
    """Return what the rows at ``at`` have not asked for of the next group's two streams."""
    half = 8 * row_bytes
    ahead = at + 2 * half + (_AHEAD if half > _AHEAD else _AHEAD + half)
    return ahead, ahead + half


@njit
def decode_tokens(args, first, last, stride, kind, turned, dots, centre, halves):
    """Multiply rows [16 first, 16 last) by up to a handful of tokens.

    ``stride``: bytes of 256 weights; ``kind``: f32x8 or f32x16, the shape of the type's scales;
    ``turned`` reads a block turned, ``dots`` multiplies; ``centre``: see tiles.prefill;
    ``halves``: whether these of the products are added, not quarters (turned.turned_blocks).
    """
    n_rows, n_cols = args.n_rows, args.n_cols
    row_bytes, weights = args.row_bytes, args.weights
    step, tokens = args.input_stride, args.input
    n_tokens = load(args.state, int64)
    n_full = n_cols // _SUPER
    tail, columns = row_bytes - n_full * stride, n_cols - n_full * _SUPER
    n = (n_full + (1 if tail else 0)) * _SUPER
    share = _SUPER // columns if columns == 64 or columns == 128 else 0  # rows to a super-block
    n_blocks = n_full + (1 if tail and not share else 0)
    shape = (row_bytes, n_full, stride, tail, weights + n_rows * row_bytes, stack(768))
    prepared, last_columns, totals, tails = stack(10240), stack(2560), stack(512), stack(3072)
    rows = stack(16512) + 64  # columns8 reads beside
    for t in range(0, n_tokens, _TOKENS):
        token, count = tokens + t * step, min(_TOKENS, n_tokens - t)
        strip = _STRIP // count
        for i in range(count if share else 0):
            _prepare(
                token + i * step, n, n_full, last_columns + _PREPARED * i, kind, centre, halves
            )
            _repeat(last_columns + _PREPARED * i, share)
        for item in range(first, last):
            row = item * abi.GROUP
            n_valid, at = min(int64(abi.GROUP), n_rows - row), weights + row * row_bytes
            following = _following(at, row_bytes)
            if share:  # long before they are read
                _collect_tails(at, n_valid, shape, tails)
            for i in range(count):
                store(totals + 64 * i, zeros(f32x16))
            start = 0
            while start < n_blocks:
                stop = min(n_blocks, start + strip)
                if item == first or n_blocks > strip:
                    for block in range(start, stop):
                        for i in range(count):
                            to = prepared + _PREPARED * ((block - start) * count + i)
                            _prepare(token + i * step, n, block, to, kind, centre, halves)
                strip_at = (at, n_valid, shape, start, stop, prepared, rows)
                if count == 1:
                    _multiply_strip(strip_at, 1, _multiply_pair, turned, dots, centre, halves)
                else:
                    _multiply_strip(
                        strip_at, count, _multiply_by_several, turned, dots, centre, halves
                    )
                for i in range(count):
                    total, scales = load(totals + 64 * i, f32x16), token + i * step + n
                    mine, apart = rows + _ROWS * i, _ROWS * count
                    total = _add_strip(total, mine, apart, (start, stop), n_cols, scales, following)
                    store(totals + 64 * i, total)
                start = stop
            for pair in range(8 // share if share else 0):
                here, to = tails + 2 * pair * stride, rows + 64 * pair
                _multiply(
                    here, here + stride, to, last_columns, count, turned, dots, centre, halves
                )
            for i in range(count):
                if share:
                    total, scales = load(totals + 64 * i, f32x16), token + i * step + n
                    total = _add_tails(total, rows + _ROWS * i, share, scales + 32 * n_full)
                    store(totals + 64 * i, total)
                finish_group(args, row, n_valid, t + i, totals + 64 * i)
