"""NEON with the dot-product extension: signed four-way products."""

import sys

from llvmlite import ir

from ggq.simd.declared import InstructionSet
from ggq.simd.lowering import I8, by_pieces, call, concatenate, pieces, select_lookup8, splat


def _runs_on(machine, features):
    """LLVM does not list features on macOS; every Apple processor here has the dot product."""
    return machine == "arm" and ("dotprod" in features or sys.platform == "darwin")


SET = InstructionSet(
    rank=10,
    runs_on=_runs_on,
    cpu="neoverse-n1",
    features="+neon,+dotprod,+fullfp16",
    dot="sdot",
    signed_wide=True,
)


def _sdot(builder, acc, a, b):
    return call(builder, "llvm.aarch64.neon.sdot.v4i32.v16i8", acc.type, [acc, a, b])


def dot4(builder, acc, unsigned, signed, wide):
    """Emit acc + sums of four products of signed bytes; with ``wide``, of codes less 128."""
    if wide:
        unsigned = builder.xor(unsigned, splat(unsigned.type, 128))
    return by_pieces(builder, lambda a, u, s: _sdot(builder, a, u, s), 4, acc, unsigned, signed)


lookup8 = select_lookup8


def lookup16(builder, table, index):
    """Emit tbl on 16-byte pieces."""
    kind = ir.VectorType(I8, 16)
    parts = [
        call(builder, "llvm.aarch64.neon.tbl1.v16i8", kind, [table, part])
        for part in pieces(builder, index, 16)
    ]
    return concatenate(builder, parts)
