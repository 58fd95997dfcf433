"""What all kernels of block types share: how a type is read, rows decoded, outputs stored.

A type brings ``unpack(address)``, which reads 256 weights and returns four u8x64 code vectors in
column order, the scales and the minimums as float32 vectors (f32x8: one lane per 32 columns,
f32x16: one per 16), so that a weight is ``scale * code - minimum``. It knows neither threads nor
plans.
"""

from ggq.jit import njit
from ggq.quants.kernels import abi
from ggq.simd import (
    convert,
    f32x16,
    float32,
    int64,
    lane,
    load,
    splat,
    stack,
    store,
    u8x16,
    u8x64,
    u32x16,
    uint8,
    uint16,
    zeros,
)

_SUPER = abi.SUPER
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
