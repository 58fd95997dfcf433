"""Prefill without a dot instruction: weights are unpacked row by row, a lane is a token.

The tokens' columns are interleaved once for many rows, so that a vector holds 4 columns of as many
tokens as a register has 32-bit lanes; 4 codes of a row, repeated in all lanes, multiply them. Eight
such codes, 32 columns, stay in registers over many tokens, and the activations come as operands
from memory. Same ``unpack`` as in blocks.py, same arithmetic on the integer sums (sums.py).

That suits sets that add products up themselves: vpmaddubsw takes the signed factor from memory.
Codes above 127 are multiplied as words of 16 bits, the even bytes of each four, then the odd ones.
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
    gather_columns,
    i8x32,
    i8x64,
    i16x16,
    i16x32,
    i32x8,
    i32x16,
    int32,
    int64,
    isa,
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
_SHORT = isa.SET.lanes == 8
_LANES = 8 if _SHORT else 16  # tokens in a vector
_VECTOR = 4 * _LANES
_SUMS, _FLOATS = (i32x8, f32x8) if _SHORT else (i32x16, f32x16)
_BYTES, _WORDS = (i8x32, i16x16) if _SHORT else (i8x64, i16x32)
# An unpacked row: codes as bytes, or as even and odd ones in words; scales; minimums.
_SCALES, _MINS, _ROW = 512, 576, 640
# Of one pass: running totals [row][token] and the tokens' columns stay in the L2 cache.
_GROUPS, _TOKENS = 8, 256
_ROW_TOTALS = 4 * _TOKENS
_GROUP_TOTALS = 16 * _ROW_TOTALS


@njit
def _cell(wide):
    """Return the bytes of 32 columns of a vector of tokens: codes, scales, one or two low sums."""
    return 19 * _VECTOR if wide else 11 * _VECTOR


@njit
def _words(codes, kind):
    """Return the even and the odd bytes of each four as signed words."""
    both, eight = bitcast(codes, kind), splat(8, kind)
    return (both << eight) >> eight, both >> eight


@njit
def _put(values, at, step):
    a, b, c, d, e, f, g, h = values
    store(at, a)
    store(at + step, b)
    store(at + 2 * step, c)
    store(at + 3 * step, d)
    store(at + 4 * step, e)
    store(at + 5 * step, f)
    store(at + 6 * step, g)
    store(at + 7 * step, h)


@njit
def _put_words(values, at):
    for i, value in enumerate(values):
        even, odd = _words(value, _WORDS)
        store(at + _VECTOR * i, even)
        store(at + _VECTOR * (8 + i), odd)


def _put_low(first, second, at, step, centre, kind):
    """Store what 256 columns' sums of codes take away: 16 columns each, 8 in either tuple."""
    raise NotImplementedError


@overload(_put_low, jit_options={"forceinline": True})
def _overload_put_low(first, second, at, step, centre, kind):
    if kind.instance_type.lanes == 8:

        def per_32(first, second, at, step, centre, kind):
            a, b, c, d, e, f, g, h = first
            i, j, k, m, n, o, p, q = second
            both = a + b, c + d, e + f, g + h, i + j, k + m, n + o, p + q
            for sub, value in enumerate(both):
                store(at + step * sub, sums.lanes_low(value, centre, _SUMS, _FLOATS))

        return per_32

    def per_16(first, second, at, step, centre, kind):
        for i, value in enumerate(first):
            store(
                at + step * (i // 2) + _VECTOR * (i % 2),
                sums.lanes_low(value, centre, _SUMS, _FLOATS),
            )
        at += 4 * step
        for i, value in enumerate(second):
            store(
                at + step * (i // 2) + _VECTOR * (i % 2),
                sums.lanes_low(value, centre, _SUMS, _FLOATS),
            )

    return per_16


@njit
def _prepare(table, n, block, to, step, centre, kind, wide):
    """Interleave 256 columns of the tokens at the addresses in ``table``, 32 to a cell."""
    for sub in range(8):
        codes = gather_columns(table, int64(_SUPER * block + 32 * sub), _SUMS)
        if wide:
            _put_words(codes, to + step * sub)
        else:
            _put(codes, to + step * sub, _VECTOR)
    at = to + (16 if wide else 8) * _VECTOR
    _put(gather_columns(table, int64(n + 32 * block), _SUMS), at, step)
    low = n + n // 8 + 64 * block
    first = gather_columns(table, int64(low), _SUMS)
    second = gather_columns(table, int64(low + 32), _SUMS)
    _put_low(first, second, at + _VECTOR, step, centre, kind)


@njit
def _unpack_row(at, stride, tail, to, unpack, wide):
    """Leave 256 columns of a row at ``to``."""
    for line in range(stride, 2 * stride, 64):
        prefetch_far(at + line)
    if tail:
        bounce = stack(384)
        copy_tail(at, tail, bounce)
        at = bounce
    c0, c1, c2, c3, scales, mins = unpack(at)
    for i, codes in enumerate((c0, c1, c2, c3)):
        if wide:
            even, odd = _words(codes ^ splat(128, u8x64), i16x32)
            store(to + 64 * i, even)
            store(to + 256 + 64 * i, odd)
        else:
            store(to + 64 * i, codes)
    store(to + _SCALES, scales)
    store(to + _MINS, mins)


@njit
def _repeated(at):
    return bitcast(splat(load(at, int32), _SUMS), _BYTES)


@njit
def _codes4(at):
    return _repeated(at), _repeated(at + 4), _repeated(at + 8), _repeated(at + 12)


@njit
def _codes8(at):
    a, b, c, d = _codes4(at)
    e, f, g, h = _codes4(at + 16)
    return a, b, c, d, e, f, g, h


@njit
def _columns4(at):
    return (
        load(at, _BYTES),
        load(at + _VECTOR, _BYTES),
        load(at + 2 * _VECTOR, _BYTES),
        load(at + 3 * _VECTOR, _BYTES),
    )


@njit
def _columns8(at):
    a, b, c, d = _columns4(at)
    e, f, g, h = _columns4(at + 4 * _VECTOR)
    return a, b, c, d, e, f, g, h


@njit
def _floats(row, lane):
    """Return a row's scale, what takes the sums' start away, its minimum, each in all lanes."""
    scale = splat(load(row + _SCALES + 4 * lane, float32), _FLOATS)
    return (
        scale,
        sums.lanes_back(scale, _FLOATS),
        splat(load(row + _MINS + 4 * lane, float32), _FLOATS),
    )


@njit
def _add(total, value, at):
    store(total, fma(value, load(at, _FLOATS), load(total, _FLOATS)))


def _multiply(row, sub, x, count, total, products, centre, kind):
    """Add 32 columns of a row times ``count`` vectors of tokens at ``x`` to their totals."""
    raise NotImplementedError


@overload(_multiply, jit_options={"forceinline": True})
def _overload_multiply(row, sub, x, count, total, products, centre, kind):
    if kind.instance_type.lanes == 8:

        def per_32(row, sub, x, count, total, products, centre, kind):
            codes, floats = _codes8(row + 32 * sub), _floats(row, sub)
            for _ in range(count):
                low = load(x + 9 * _VECTOR, _SUMS)
                exact = products(sums.lanes_start(low, centre, _SUMS), codes, _columns8(x))
                value = sums.lanes_weighted(exact, floats, low, centre, _FLOATS)
                _add(total, value, x + 8 * _VECTOR)
                x, total = x + 11 * _VECTOR, total + _VECTOR

        return per_32

    def per_16(row, sub, x, count, total, products, centre, kind):
        codes, others = _codes4(row + 32 * sub), _codes4(row + 32 * sub + 16)
        floats, other_floats = _floats(row, 2 * sub), _floats(row, 2 * sub + 1)
        for _ in range(count):
            low, other = load(x + 9 * _VECTOR, _SUMS), load(x + 10 * _VECTOR, _SUMS)
            a = products(sums.lanes_start(low, centre, _SUMS), codes, _columns4(x))
            at = x + 4 * _VECTOR
            b = products(sums.lanes_start(other, centre, _SUMS), others, _columns4(at))
            value = sums.lanes_weighted(a, floats, low, centre, _FLOATS)
            second = sums.lanes_weighted(b, other_floats, other, centre, _FLOATS)
            _add(total, value + second, x + 8 * _VECTOR)
            x, total = x + 11 * _VECTOR, total + _VECTOR

    return per_16


@njit
def _multiply_words(row, sub, x, count, total, products, centre):
    """The same of words: half of the columns, then the other half, so that codes fit registers."""
    codes, floats, part = _codes8(row + 32 * sub), _floats(row, sub), stack(1024)
    at = x
    for i in range(count):
        low = load(at + 17 * _VECTOR, _SUMS)
        start = sums.lanes_start(low, centre, _SUMS)
        store(part + _VECTOR * i, products(start, codes, _columns8(at)))
        at += 19 * _VECTOR
    codes = _codes8(row + 256 + 32 * sub)
    for i in range(count):
        at = x + 8 * _VECTOR
        low = load(at + 9 * _VECTOR, _SUMS)
        exact = products(load(part + _VECTOR * i, _SUMS), codes, _columns8(at))
        _add(total, sums.lanes_weighted(exact, floats, low, centre, _FLOATS), at + 8 * _VECTOR)
        x, total = x + 19 * _VECTOR, total + _VECTOR


@njit
def _finish(args, row, start, count, totals):
    """Write a group's totals: a token's rows lie together."""
    bounce = stack(1024)
    n_valid = min(16, args.n_rows - row)
    for t in range(0, count, 16):
        transpose16(totals + 4 * t, int64(_ROW_TOTALS), bounce, int64(64))
        for i in range(min(16, count - t)):
            finish_group(args, row, n_valid, start + t + i, bounce + 64 * i)


@njit
def prefill(args, first, last, unpack, products, stride, kind, centre, wide):
    """Multiply rows [16 first, 16 last) by any number of tokens.

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
    cell = _cell(wide)
    table, rows, prepared, totals = stack(128), stack(10240), stack(155648), stack(131072)
    for lowest in range(first, last, _GROUPS):
        row, end = lowest * abi.GROUP, min(n_rows, (lowest + _GROUPS) * abi.GROUP)
        for start in range(0, n_tokens, _TOKENS):
            count = min(_TOKENS, n_tokens - start)
            vectors = (count + _LANES - 1) // _LANES
            for i in range(0, _ROW_TOTALS * (end - row), 64):
                store(totals + i, zeros(f32x16))
            for block in range(n_blocks):
                cut = tail if block == n_full else 0
                n_subs = (n_cols - n_full * _SUPER) // 32 if cut else _SUPER // 32
                for v in range(vectors):
                    for i in range(_LANES):
                        t = min(v * _LANES + i, count - 1)  # the last one repeated
                        store(table + 8 * i, tokens + (start + t) * step)
                    _prepare(
                        table, n, block, prepared + v * cell, vectors * cell, centre, kind, wide
                    )
                for group in range(row, end, abi.GROUP):
                    n_valid = min(16, end - group)
                    at = weights + group * row_bytes + block * stride
                    for r in range(n_valid):
                        _unpack_row(at + r * row_bytes, stride, cut, rows + r * _ROW, unpack, wide)
                    for sub in range(n_subs):
                        x = prepared + sub * vectors * cell
                        for r in range(n_valid):
                            to, total = rows + r * _ROW, totals + (group - row + r) * _ROW_TOTALS
                            if wide:
                                _multiply_words(to, sub, x, vectors, total, products, centre)
                            else:
                                _multiply(to, sub, x, vectors, total, products, centre, kind)
            for group in range(row, end, abi.GROUP):
                _finish(args, group, start, count, totals + (group - row) * _ROW_TOTALS)
