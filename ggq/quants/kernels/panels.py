"""Rows of floats times many tokens: 16 rows are widened once and stay near for a block of tokens.

Blocks as in Goto and van de Geijn (doi 10.1145/1356052.1356053): a panel of rows in the L1 cache, a
block of tokens in the L2 cache, a tile of sums in registers. Each product of a row and a token has
the one vector of running sums that float_rows.py gives it, and the same order of additions: the
bits are the same. It knows neither threads nor plans.
"""

from ggq.jit import njit
from ggq.quants.kernels import abi
from ggq.quants.kernels.blocks import finish_group
from ggq.simd import (
    f32x8,
    f32x16,
    float32,
    fma,
    int64,
    isa,
    load,
    shuffle,
    stack,
    store,
    zeros,
)

__all__ = ["MANY", "multiply_many", "tail"]

MANY = 16  # tokens: of fewer, widening a panel would be a good part of the work
# A panel has up to 2048 columns (128 KiB) and meets up to 120 tokens (1 MiB): both stay in the L2
# cache. 256 of its columns, 12 tokens' and their running sums stay in the L1 cache.
_COLUMNS, _DEPTH = 2048, 256
_TOKENS, _BYTES, _NEAR = 120, 1 << 20, 12
_SUMS = 1024  # bytes of a token's running sums with 16 rows
_SHORT = isa.SET.lanes < 16  # registers hold half a vector, and there are few of them


@njit
def tail(row, x, n, size, scalar):
    """Return the products of the columns behind the last whole vector."""
    total = float32(0)
    for i in range(n - n % 16, n):
        total += scalar(row + i * size) * load(x + 4 * i, float32)
    return total


@njit
def _widen(panel, row, row_bytes, n_valid, width, size, vector):
    """Write columns of 16 rows as float32 [16 columns][row]; the last valid row is repeated."""
    for r in range(16):
        at = row + min(r, n_valid - 1) * row_bytes
        for i in range(0, width, 16):
            store(panel + 64 * (i + r), vector(at + i * size))


@njit
def _get4(at, kind):
    return load(at, kind), load(at + 64, kind), load(at + 128, kind), load(at + 192, kind)


@njit
def _put4(at, sums):
    store(at, sums[0])
    store(at + 64, sums[1])
    store(at + 128, sums[2])
    store(at + 192, sums[3])


@njit
def _fma4(w, x, sums):
    """Add one token's columns times those of four rows."""
    a, b, c, d = sums
    return fma(w[0], x, a), fma(w[1], x, b), fma(w[2], x, c), fma(w[3], x, d)


@njit
def _four_tokens(panel, x, step, width, sums):
    """Add ``width`` columns of four rows times four tokens to the sums, 16 registers."""
    kind = f32x16
    a, b = _get4(sums, kind), _get4(sums + _SUMS, kind)
    c, d = _get4(sums + 2 * _SUMS, kind), _get4(sums + 3 * _SUMS, kind)
    for i in range(0, width, 16):
        w, at = _get4(panel + 64 * i, kind), x + 4 * i
        a, b = _fma4(w, load(at, kind), a), _fma4(w, load(at + step, kind), b)
        c = _fma4(w, load(at + 2 * step, kind), c)
        d = _fma4(w, load(at + 3 * step, kind), d)
    _put4(sums, a)
    _put4(sums + _SUMS, b)
    _put4(sums + 2 * _SUMS, c)
    _put4(sums + 3 * _SUMS, d)


@njit
def _three_tokens(panel, x, step, width, sums):
    """Add half of each vector of four rows times three tokens to the sums: 12 short registers."""
    kind = f32x8
    a, b, c = _get4(sums, kind), _get4(sums + _SUMS, kind), _get4(sums + 2 * _SUMS, kind)
    for i in range(0, width, 16):
        w, at = _get4(panel + 64 * i, kind), x + 4 * i
        a, b = _fma4(w, load(at, kind), a), _fma4(w, load(at + step, kind), b)
        c = _fma4(w, load(at + 2 * step, kind), c)
    _put4(sums, a)
    _put4(sums + _SUMS, b)
    _put4(sums + 2 * _SUMS, c)


@njit
def _one_token(panel, x, width, sums):
    a = _get4(sums, f32x16)
    for i in range(0, width, 16):
        a = _fma4(_get4(panel + 64 * i, f32x16), load(x + 4 * i, f32x16), a)
    _put4(sums, a)


@njit
def _forget(sums, n_tokens):
    for i in range(0, n_tokens * _SUMS, 64):
        store(sums + i, zeros(f32x16))


@njit
def _add_panel(panel, x, step, width, count, sums):
    """Add the products of a panel and ``count`` tokens to their running sums."""
    for column in range(0, width, _DEPTH):
        n = min(int64(_DEPTH), width - column)
        _add_columns(panel + 64 * column, x + 4 * column, step, n, count, sums)


@njit
def _add_columns(panel, x, step, width, count, sums):
    t = int64(0)
    if _SHORT:
        while t + 3 <= count:
            at, to = x + t * step, sums + t * _SUMS
            for r in range(0, 1024, 256):
                _three_tokens(panel + r, at, step, width, to + r)
                _three_tokens(panel + r + 32, at + 32, step, width, to + r + 32)
            t += 3
    else:
        while t + 4 <= count:
            for r in range(0, 1024, 256):
                _four_tokens(panel + r, x + t * step, step, width, sums + t * _SUMS + r)
            t += 4
    for rest in range(t, count):
        for r in range(0, 1024, 256):
            _one_token(panel + r, x + rest * step, width, sums + rest * _SUMS + r)


def _halves(lanes):
    """Return what picks the low and the high halves of each ``lanes`` lanes of two vectors."""
    starts = range(0, 32, lanes)
    low = [s + i for s in starts for i in range(lanes // 2)]
    return shuffle(low), shuffle([i + lanes // 2 for i in low])


_low16, _high16 = _halves(16)
_low8, _high8 = _halves(8)
_low4, _high4 = _halves(4)
_low2, _high2 = _halves(2)


@njit
def _folded4(at):
    """Return four vectors' sums of four lanes each, side by side."""
    a, b, c, d = _get4(at, f32x16)
    p, q = _low16(a, b) + _high16(a, b), _low16(c, d) + _high16(c, d)
    return _low8(p, q) + _high8(p, q)


@njit
def _reduced16(at):
    """Return the sums of 16 vectors, one a lane: each added up as `reduce_add` does it."""
    a, b, c, d = _folded4(at), _folded4(at + 256), _folded4(at + 512), _folded4(at + 768)
    p, q = _low4(a, b) + _high4(a, b), _low4(c, d) + _high4(c, d)
    return _low2(p, q) + _high2(p, q)


@njit
def _finish_tokens(args, group, tokens, sums, size, scalar):
    """Write 16 rows' outputs of ``tokens`` (first, one past the last)."""
    n, row_bytes, step = args.n_cols, args.row_bytes, args.input_stride
    row = group * abi.GROUP
    n_valid = min(int64(abi.GROUP), args.n_rows - row)
    rest = stack(64)
    store(rest, zeros(f32x16))
    for token in range(tokens[0], tokens[1]):
        at = sums + (token - tokens[0]) * _SUMS
        if n % 16:
            x = args.input + token * step
            for r in range(n_valid):
                source = args.weights + (row + r) * row_bytes
                store(rest + 4 * r, tail(source, x, n, size, scalar))
        store(at, _reduced16(at) + load(rest, f32x16))
        finish_group(args, row, n_valid, token, at)


@njit
def multiply_many(args, first, last, size, vector, scalar):
    """Multiply rows [16 first, 16 last) by at least MANY tokens; arguments: float_rows.py's."""
    n_rows, row_bytes, step = args.n_rows, args.row_bytes, args.input_stride
    n_tokens = load(args.state, int64)
    whole = args.n_cols - args.n_cols % 16
    block = max(int64(_NEAR), min(int64(_TOKENS), _BYTES // step // _NEAR * _NEAR))
    panel, sums = stack(131072), stack(131072)
    for start in range(0, n_tokens, block):
        end = min(start + block, n_tokens)
        for group in range(first, last):
            row = group * abi.GROUP
            at, n_valid = args.weights + row * row_bytes, min(int64(abi.GROUP), n_rows - row)
            for column in range(0, max(whole, int64(1)), _COLUMNS):  # once at least
                width = min(int64(_COLUMNS), whole - column)
                _widen(panel, at + column * size, row_bytes, n_valid, width, size, vector)
                for near in range(start, end, _NEAR):
                    to, n = sums + (near - start) * _SUMS, min(int64(_NEAR), end - near)
                    if column == 0:
                        _forget(to, n)
                    x = args.input + near * step + 4 * column
                    _add_panel(panel, x, step, width, n, to)
                    if column + width == whole:
                        _finish_tokens(args, group, (near, near + n), to, size, scalar)
