"""Holds a type's matmul kernels to a plain float64 twin; run as a script it does so for all types.

    GGQ_ISA=avx2 python -m tests.kernelcheck [Q4_K ...]     (the set is chosen at import)

Compiling all takes minutes; `--sample` takes all kernels of one type per form, of the others only
what decodes rows, and the dot products where these depend on the codes. `--assembly` reads the
machine code, too, and compiles what comes from the cache again for that.
The twin multiplies the decoded weights and the decoded 8-bit activations, so that what is compared
is the kernel's arithmetic and not the rounding of activations.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import re
import sys
from functools import cache

import numpy as np

from ggq import jit, quants
from ggq.quants.kernels import abi
from ggq.simd import isa

TOLERANCE = 3e-6  # of the largest output: float32 sums of at most some hundred terms
SHAPES = ((512, 70, 1), (512, 33, 4), (256, 16, 7), (768, 48, 35), (1280, 20, 8), (8448, 7, 1))
ODD_SHAPES = ((576, 33, 1), (576, 49, 17), (32, 17, 3), (416, 40, 5), (96, 16, 130))
ODD_SHAPES += ((640, 35, 9), (128, 19, 2), (64, 5, 8), (1344, 24, 6))


def types_with_kernels():
    """Return the types that have matmul kernels."""
    found = []
    for kind in quants.all():
        try:
            kind.matmul()
        except quants.UsageError:
            continue
        found.append(kind)
    return found


def quantized(x):
    """Return (activation rows in the kernels' 8-bit layout, their decoded float64 values)."""
    tokens, width = x.shape
    n = abi.padded(width)
    padded = np.zeros((tokens, n))
    padded[:, :width] = x
    blocks = padded.reshape(tokens, -1, 32)
    scale = np.float32(np.abs(blocks).max(-1) / 127)
    codes = np.rint(blocks / np.where(scale > 0, scale, 1)[..., None])
    sums = codes.reshape(tokens, -1, 16).sum(-1)
    parts = [codes.astype(np.int8).reshape(tokens, n), scale, sums.astype(np.int32)]
    rows = np.zeros((tokens, abi.q8_bytes(width)), np.uint8)
    used = np.concatenate([np.ascontiguousarray(p).view(np.uint8) for p in parts], axis=1)
    rows[:, : used.shape[1]] = used
    return rows, (codes * scale[..., None]).reshape(tokens, n)[:, :width]


def run(kernel, blocks, n_cols, source, tokens, *, bias=None, residual=None, items=None):
    """Call a compiled kernel on all rows and return float32 (tokens, rows)."""
    rows = len(blocks)
    out = np.full((tokens, rows), np.nan, np.float32)
    state = np.array([tokens], np.int64)
    args = [blocks.ctypes.data, blocks.shape[1], rows, n_cols, source.ctypes.data]
    args += [source.strides[0], out.ctypes.data, out.strides[0]]
    args += [0 if a is None else a.ctypes.data for a in (bias, residual)] + [state.ctypes.data]
    block = np.array(args, np.int64)
    kernel.ctypes(block.ctypes.data, 0, -(-rows // abi.GROUP) if items is None else items)
    return out


def random_blocks(kind, rows, n, rng):
    """Return blocks of random bytes, their scales set to moderate numbers."""
    blocks = rng.integers(0, 256, (rows, kind.row_bytes(n)), np.uint8)
    fields = blocks.reshape(rows, -1, kind.block_bytes).view(kind.layout)[..., 0]
    scales = [n for n in kind.layout.names if kind.layout[n] == np.float16]
    for name in scales:
        fields[name] = _signed(rng, fields.shape)
    if kind.name == "IQ1_M":  # its half lies in the upper nibbles of four words
        bits = _signed(rng, fields.shape).view(np.uint16)[..., None]
        upper = (bits << np.array([12, 8, 4, 0], np.uint16)) & np.uint16(0xF000)
        fields["scales"] = (fields["scales"] & np.uint16(0x0FFF)) | upper
    if kind.name == "MXFP4":  # powers of two
        fields["d"] = rng.integers(118, 128, fields.shape)
    return blocks


def _signed(rng, shape):
    return np.float16(rng.uniform(0.001, 0.01, shape) * rng.choice([-1, 1], shape))


def before_a_wall(blocks):
    """Return a copy that ends where memory ends: one byte more cannot be read (POSIX)."""
    if os.name != "posix":
        return blocks
    page = mmap.PAGESIZE
    length = -(-blocks.nbytes // page) * page
    region = mmap.mmap(-1, length + page)
    whole = np.frombuffer(region, np.uint8)
    wall = ctypes.c_void_p(whole.ctypes.data + length)
    assert ctypes.CDLL(None).mprotect(wall, ctypes.c_size_t(page), 0) == 0
    copy = whole[length - blocks.nbytes : length].reshape(blocks.shape)
    copy[:] = blocks
    return copy


def weights(kind, rows, n, rng):
    """Return (blocks, their decoded float64 values) of random weights."""
    if hasattr(kind, "layout"):
        blocks = random_blocks(kind, rows, n, rng)
    else:
        blocks = kind.quantize((rng.standard_normal((rows, n)) * 0.1).astype(np.float32))
    blocks = before_a_wall(np.ascontiguousarray(blocks).view(np.uint8).reshape(rows, -1))
    return blocks, kind.dequantize(blocks).reshape(rows, n).astype(np.float64)


def check_matmul(kind, n, rows, tokens, forms=("decode", "prefill")):
    """Compare matmul kernels, with bias and residual, to the twin; return the worst error.

    All give the same bits, whatever tokens a token stands beside.
    """
    rng = np.random.default_rng(n + rows + tokens)
    blocks, decoded = weights(kind, rows, n, rng)
    x = rng.standard_normal((tokens, n)).astype(np.float32)
    kernels = kind.matmul()
    source, values = quantized(x) if kernels.activations == "q8" else (x, x.astype(np.float64))
    bias = np.zeros(-(-rows // 16) * 16, np.float32)
    bias[:rows] = rng.standard_normal(rows)
    residual = rng.standard_normal((tokens, rows)).astype(np.float32)
    want = values @ decoded.T + bias[:rows] + residual
    found = {}
    for form in forms:
        kernel = compiled(kind.name, form)
        found[form] = run(kernel, blocks, n, source, tokens, bias=bias, residual=residual)
        alone = run(kernel, blocks, n, source[-1:], 1, bias=bias, residual=residual[-1:])
        assert alone.tobytes() == found[form][-1:].tobytes(), f"{kind.name} {form}: not as alone"
    first, *others = found.values()
    for other in others:
        assert other.tobytes() == first.tobytes(), f"{kind.name}: the kernels differ"
    worst = float(np.abs(first - want).max() / np.abs(want).max())
    assert worst < TOLERANCE, f"{kind.name} {n}x{rows}x{tokens}: error {worst:.1e}"
    return worst


FILLS = (0xFF, 0x77, 0x80, 0x7F)  # the largest codes of nibbles, of MXFP4, of signed bytes


def check_extremes(kind, n=512, rows=16):
    """Hold sums of the largest codes and activations to the twin: some sets add in 16 bits."""
    rng = np.random.default_rng(3)
    for fill in FILLS:
        blocks = random_blocks(kind, rows, n, rng)
        fields = blocks.reshape(rows, -1, kind.block_bytes).view(kind.layout)[..., 0]
        for name in kind.layout.names:
            if fields[name].dtype == np.uint8 and name != "d":
                fields[name] = fill
        decoded = kind.dequantize(blocks).reshape(rows, n).astype(np.float64)
        for x in (np.ones((2, n), np.float32), -np.ones((2, n), np.float32)):
            source, values = quantized(x)
            want = values @ decoded.T
            limit = TOLERANCE * np.abs(values) @ np.abs(decoded).T
            for form in ("decode", "prefill"):
                got = run(compiled(kind.name, form), blocks, n, source, 2)
                assert (np.abs(got - want) <= limit).all(), f"{kind.name} {form} {fill:#x}"


@cache
def compiled(name, form):
    """Return a type's kernel, compiled once for all shapes."""
    return getattr(quants.get(name).matmul(), form)


def check_rows(kind, n):
    """Compare the kernel that decodes rows to the type's own decoder."""
    rng = np.random.default_rng(n)
    blocks, decoded = weights(kind, 9, n, rng)
    ids = np.array([[3], [8], [0]], np.int64)
    out = np.full((3, n), np.nan, np.float32)
    args = [blocks.ctypes.data, blocks.shape[1], 9, n, ids.ctypes.data, 8]
    block = np.array([*args, out.ctypes.data, out.strides[0], 0, 0, 0], np.int64)
    compiled(kind.name, "dequantize").ctypes(block.ctypes.data, 0, 3)
    want = decoded[ids[:, 0]]
    assert np.abs(out - want).max() <= 1e-6 * np.abs(want).max(), kind.name


def shapes(kind):
    """Return (columns, rows, tokens) to try: odd widths where the blocks allow them."""
    return [s for s in SHAPES + ODD_SHAPES if s[0] % kind.block_size == 0]


# One type per form of the kernels: float rows, scales per 32 or 16 columns, codes above 127, blocks
# of an odd size.
FORMS = ("F16", "Q4_K", "Q6_K", "Q8_0", "MXFP4")


# Sums of two products in 16 bits, right only for small codes: what a type says of its own counts.
SATURATES = ("vpmaddubsw",)


def forms(kind, options):
    """Return the kernels to check: decode, prefill, dequantize, or what a sample has of them."""
    if "--sample" not in options or kind.name in FORMS:
        return ("decode", "prefill", "dequantize")
    return ("decode", "dequantize") if isa.SET.dot in SATURATES else ("dequantize",)


def wanted_types(arguments):
    """Return the types that a command line names, or all."""
    names = [argument for argument in arguments[1:] if not argument.startswith("--")]
    return [quants.get(name) for name in names] or types_with_kernels()


def groups(size=4):
    """Return the names of all types in groups: what one process compiles in seconds."""
    names = sorted((kind.name for kind in types_with_kernels()), key=lambda name: name in FORMS)
    n = -(-len(names) // size)
    return [names[i::n] for i in range(n)]


# What a set's code must not hold: wider registers or instructions than its processors have.
FOREIGN = {"avx512bw": "vpdp", "avx2vnni": "%zmm", "avx2": "%zmm|vpdp"}
FOREIGN |= {"generic": r"%[yz]mm|vpdp|[su]dot\b"}


def check_assembly(kind, forms=("decode", "prefill", "dequantize")):
    """Hold a type's kernels to this set: its dot instruction in each matmul, no foreign code."""
    for form in forms:
        assembly = compiled(kind.name, form).module.assembly()
        assert "\tret" in assembly, f"{kind.name} {form}: no assembly"
        if isa.SET.dot and form != "dequantize" and kind.matmul().activations == "q8":
            # Of a set whose sums saturate, prefill multiplies codes above 127 as words (tokens.py).
            words = isa.SET.dot in SATURATES and form == "prefill"
            dot = f"{isa.SET.dot}|vpmaddwd" if words else isa.SET.dot
            assert re.search(rf"\b({dot})\b", assembly), f"{kind.name} {form}: no {dot}"
        foreign = FOREIGN.get(jit.ISA)
        hit = re.search(foreign, assembly) if foreign else None
        assert not hit, f"{kind.name} {form}: {hit[0]} under {jit.ISA}"


def main() -> None:
    """Check the named types' kernels, or all, under this instruction set; write the worst error."""
    worst = 0.0
    for kind in wanted_types(sys.argv):
        wanted = forms(kind, sys.argv)
        matmul = [form for form in wanted if form != "dequantize"]
        for shape in shapes(kind) if matmul else ():
            worst = max(worst, check_matmul(kind, *shape, matmul))
        if len(matmul) == 2 and hasattr(kind, "layout"):
            check_extremes(kind)
        check_rows(kind, 512)
        if "--assembly" in sys.argv:
            check_assembly(kind, wanted)
    sys.stdout.write(f"{jit.ISA}: {worst:.1e}\n")


if __name__ == "__main__":
    main()
