"""Decoding: dot products on native blocks for a few tokens, the skeleton of all block types.

A type brings ``unpack(address)``, which reads 256 weights and returns four u8x64 code vectors in
column order, the scales and the minimums as float32 vectors (f32x8: one lane per 32 columns,
f32x16: one per 16), so that a weight is ``scale * code - minimum``. It knows neither threads nor
plans.
"""

from numba import float32, int64, uint8, uint16
from numba.extending import overload

from ggq.jit import njit
from ggq.quants.kernels import abi
from ggq.simd import (
    convert,
    f32x8,
    f32x16,
    fma,
    i8x64,
    i32x8,
    i32x16,
    join,
    lane,
    load,
    prefetch,
    select,
    shuffle,
    splat,
    spread,
    stack,
    store,
    sum_rows,
    u8x16,
    u8x64,
    u32x16,
    vector_constant,
    zeros,
)

_SUPER = abi.SUPER
_AHEAD = 3072  # bytes to prefetch ahead: the hardware stops at each 4 KiB page
SCRATCH = 384  # at least 256 weights of any type in bytes, in whole vectors
_iota8 = vector_constant(i32x8, range(8))
_twice = shuffle([i // 2 for i in range(16)])


def input_scales(address, n, block, like):
    """Return the activation scales of 256 columns, one per lane of ``like``."""
    raise NotImplementedError


@overload(input_scales, jit_options={"forceinline": True})
def _input_scales(address, n, block, like):
    if like.lanes == 8:
        return lambda address, n, block, like: load(address + n + 32 * block, f32x8)

    def per_sixteen(address, n, block, like):
        scales = load(address + n + 32 * block, f32x8)
        return _twice(scales, scales)

    return per_sixteen


def input_sums(address, n, block, like):
    """Return the scaled activation sums of 256 columns, one per lane of ``like``."""
    raise NotImplementedError


@overload(input_sums, jit_options={"forceinline": True})
def _input_sums(address, n, block, like):
    if like.lanes == 8:
        return lambda address, n, block, like: load(address + n + n // 8 + 32 * block, f32x8)
    return lambda address, n, block, like: load(address + n + n // 4 + 64 * block, f32x16)


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
def _accumulate(unpacked, token, n, block, dot, sums):
    """Add the dot product of 256 weights and one token's codes to its running sums."""
    c0, c1, c2, c3, scales, mins = unpacked
    first, second, low = sums
    scales = scales * input_scales(token, n, block, scales)
    low = fma(mins, input_sums(token, n, block, mins), low)
    codes = token + _SUPER * block
    none = zeros(i32x16)
    first = fma(convert(dot(none, c0, load(codes, i8x64)), f32x16), spread(scales, 0), first)
    second = fma(convert(dot(none, c1, load(codes + 64, i8x64)), f32x16), spread(scales, 1), second)
    first = fma(convert(dot(none, c2, load(codes + 128, i8x64)), f32x16), spread(scales, 2), first)
    second = fma(
        convert(dot(none, c3, load(codes + 192, i8x64)), f32x16), spread(scales, 3), second
    )
    return first, second, low


def _widen(low):
    """Return a vector of 16 lanes with the same sum."""
    raise NotImplementedError


@overload(_widen, jit_options={"forceinline": True})
def _overload_widen(low):
    if low.lanes == 16:
        return lambda low: low
    return lambda low: join(low, zeros(f32x8))


@njit
def _total(sums):
    """Return 16 lanes whose sum is the row's output."""
    first, second, low = sums
    return (first + second) - _widen(low)


def _valid(values, count):
    """Return scales with all lanes from ``count`` on set to zero."""
    raise NotImplementedError


@overload(_valid, jit_options={"forceinline": True})
def _overload_valid(values, count):
    if values.lanes == 16:
        return lambda values, count: values  # rows of such types have no incomplete super-block
    return lambda values, count: select(_iota8() < splat(count, i32x8), values, zeros(f32x8))


@njit
def _accumulate_tail(at, columns, token, n, block, unpack, dot, sums):
    """Add a row's last ``columns`` (under 256) columns; what lies behind them is read, not used."""
    first, second, low = sums
    c0, c1, c2, c3, scales, mins = unpack(at)
    scales = _valid(scales, columns // 32) * input_scales(token, n, block, scales)
    low = fma(_valid(mins, columns // 32), input_sums(token, n, block, mins), low)
    codes = token + _SUPER * block
    none = zeros(i32x16)
    first = fma(convert(dot(none, c0, load(codes, i8x64)), f32x16), spread(scales, 0), first)
    if columns > 64:
        x = load(codes + 64, i8x64)
        second = fma(convert(dot(none, c1, x), f32x16), spread(scales, 1), second)
    if columns > 128:
        x, y = load(codes + 128, i8x64), load(codes + 192, i8x64)
        first = fma(convert(dot(none, c2, x), f32x16), spread(scales, 2), first)
        second = fma(convert(dot(none, c3, y), f32x16), spread(scales, 3), second)
    return first, second, low


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
def _rows_two(row, apart, left, shape, stride, n, token, unpack, dot, kind):
    """Return the totals of a row and of the one ``apart`` bytes on: two streams from memory.

    ``left``: bytes to where the first stream goes on behind the second's end.
    """
    n_full, columns, tail, scratch, end = shape
    sums = (zeros(f32x16), zeros(f32x16), zeros(kind))
    others = sums
    for block in range(n_full):
        at = row + stride * block
        ahead = at + (_AHEAD if stride * block + _AHEAD < left else _AHEAD + apart)
        for line in range(0, stride, 64):
            prefetch(ahead + line)
            prefetch(ahead + apart + line)
        sums = _accumulate(unpack(at), token, n, block, dot, sums)
        others = _accumulate(unpack(at + apart), token, n, block, dot, others)
    if tail:
        at = _tail_at(row + stride * n_full, stride, tail, scratch, end)
        sums = _accumulate_tail(at, columns, token, n, n_full, unpack, dot, sums)
        at = _tail_at(row + apart + stride * n_full, stride, tail, scratch, end)
        others = _accumulate_tail(at, columns, token, n, n_full, unpack, dot, others)
    return _total(sums), _total(others)


@njit
def _row_four(row, shape, stride, n, token, step, unpack, dot, kind):
    """Return four tokens' totals of a row, 16 lanes each."""
    n_full, columns, tail, scratch, end = shape
    none = (zeros(f32x16), zeros(f32x16), zeros(kind))
    s0, s1, s2, s3 = none, none, none, none
    for block in range(n_full + (1 if tail else 0)):
        at, valid = row + stride * block, int64(16)
        for line in range(_AHEAD, _AHEAD + stride, 64):
            prefetch(at + line)
        if block == n_full:
            valid = columns // 32
            if at + stride > end:
                copy_tail(at, tail, scratch)
                at = scratch
        c0, c1, c2, c3, scales, mins = unpack(at)
        unpacked = (c0, c1, c2, c3, _valid(scales, valid), _valid(mins, valid))
        s0 = _accumulate(unpacked, token, n, block, dot, s0)
        s1 = _accumulate(unpacked, token + step, n, block, dot, s1)
        s2 = _accumulate(unpacked, token + 2 * step, n, block, dot, s2)
        s3 = _accumulate(unpacked, token + 3 * step, n, block, dot, s3)
    return _total(s0), _total(s1), _total(s2), _total(s3)


@njit
def _four_tokens(at, row_bytes, n_valid, shape, stride, n, token, step, rows, unpack, dot, kind):
    """Leave the sums of up to 16 rows and four tokens at ``rows``: [token][16]."""
    for r in range(n_valid):
        to = rows + 64 * r
        a, b, c, d = _row_four(at + r * row_bytes, shape, stride, n, token, step, unpack, dot, kind)
        store(to, a)
        store(to + 1024, b)
        store(to + 2048, c)
        store(to + 3072, d)
    for t in range(4):
        store(rows + 64 * t, sum_rows(rows + 1024 * t, f32x16))


@njit
def decode_tokens(args, first, last, unpack, dot, stride, kind):
    """Multiply rows [16 first, 16 last) by up to a handful of tokens.

    ``stride``: bytes of 256 weights; ``kind``: f32x8 or f32x16, the shape of the type's scales.
    """
    n_rows, n_cols = args.n_rows, args.n_cols
    row_bytes, weights = args.row_bytes, args.weights
    step, tokens = args.input_stride, args.input
    n_tokens = load(args.state, int64)
    n_full = n_cols // _SUPER
    tail = row_bytes - n_full * stride
    n = (n_full + (1 if tail else 0)) * _SUPER
    shape = (n_full, n_cols - n_full * _SUPER, tail, stack(384), weights + n_rows * row_bytes)
    rows = stack(4096)
    for group in range(first, last):
        row = group * abi.GROUP
        n_valid, at = min(int64(abi.GROUP), n_rows - row), weights + row * row_bytes
        t = 0
        while t + 4 <= n_tokens:
            token = tokens + t * step
            _four_tokens(
                at, row_bytes, n_valid, shape, stride, n, token, step, rows, unpack, dot, kind
            )
            for i in range(4):
                finish_group(args, row, n_valid, t + i, rows + 64 * i)
            t += 4
        while t < n_tokens:
            token = tokens + t * step
            half = (n_valid + 1) // 2
            for r in range(half):  # of an odd number the last row is computed twice
                here, apart = at + r * row_bytes, (half if r + half < n_valid else 0) * row_bytes
                left = (half - r) * row_bytes
                a, b = _rows_two(here, apart, left, shape, stride, n, token, unpack, dot, kind)
                store(rows + 64 * r, a)
                if apart:
                    store(rows + 64 * (r + half), b)
            store(rows, sum_rows(rows, f32x16))
            finish_group(args, row, n_valid, t, rows)
            t += 1


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
