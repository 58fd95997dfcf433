"""AVX2: pairs of multiply-adds stand in for the dot instruction."""

from llvmlite import ir

from ggq.simd.declared import InstructionSet, x86_with
from ggq.simd.lowering import I8, call, concatenate, lanes_of, pieces
from ggq.simd.multiply_add import MultiplyAdd

SET = InstructionSet(
    rank=10,
    runs_on=x86_with("avx2", "fma", "f16c"),
    cpu="haswell",
    features="+avx2,+f16c,+fma",
    dot="vpmaddubsw",
    lanes=8,
    signed_wide=True,
    by_tokens=True,
)


_FORM = MultiplyAdd(
    8, "llvm.x86.avx2.pmadd.ub.sw", "llvm.x86.avx2.pmadd.wd", "llvm.x86.avx2.psign.b"
)
dot4, dots, products = _FORM.dot4, _FORM.dots, _FORM.products


def lookup16(builder, table, index):
    """Emit vpshufb on a table repeated in each 128-bit lane."""
    if index.type.count == 16:
        kind = ir.VectorType(I8, 16)
        return call(builder, "llvm.x86.ssse3.pshuf.b.128", kind, [table, index])
    repeated = concatenate(builder, [table, table])
    kind = ir.VectorType(I8, 32)
    parts = [
        call(builder, "llvm.x86.avx2.pshuf.b", kind, [repeated, part])
        for part in pieces(builder, index, 32)
    ]
    return concatenate(builder, parts)


def lookup8(builder, table, index):
    """Emit vpermps on the table's first half, 8 indices at a time."""
    kind = ir.VectorType(ir.FloatType(), 8)
    half = lanes_of(builder, table, 0, 8)
    parts = [
        call(builder, "llvm.x86.avx2.permps", kind, [half, part])
        for part in pieces(builder, index, 8)
    ]
    return concatenate(builder, parts)
