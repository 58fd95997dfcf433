"""AVX2: pairs of multiply-adds stand in for the dot instruction."""

from llvmlite import ir

from ggq.simd.declared import InstructionSet, x86_with
from ggq.simd.lowering import I8, I16, I32, by_pieces, call, concatenate, lanes_of, pieces, splat

SET = InstructionSet(
    rank=10,
    runs_on=x86_with("avx2", "fma", "f16c"),
    cpu="haswell",
    features="+avx2,+f16c,+fma",
    dot="vpmaddubsw",
    lanes=8,
)


def _narrow(builder, acc, unsigned, signed):
    """vpmaddubsw saturates beyond 16 bit: right for codes up to 127 (2 x 127 x 128 fits)."""
    pairs = call(builder, "llvm.x86.avx2.pmadd.ub.sw", ir.VectorType(I16, 16), [unsigned, signed])
    ones = splat(ir.VectorType(I16, 16), 1)
    sums = call(builder, "llvm.x86.avx2.pmadd.wd", ir.VectorType(I32, 8), [pairs, ones])
    return builder.add(acc, sums)


def _wide(builder, acc, unsigned, signed):
    """Split a u8 into its low 7 bits and its top bit: two products that cannot saturate."""
    kind = unsigned.type
    low = builder.and_(unsigned, splat(kind, 127))
    high = builder.and_(builder.lshr(unsigned, splat(kind, 1)), splat(kind, 64))  # 128 halved
    acc = _narrow(builder, acc, low, signed)
    half = _narrow(builder, splat(acc.type, 0), high, signed)
    return builder.add(acc, builder.shl(half, splat(acc.type, 1)))


def dot4(builder, acc, unsigned, signed, wide):
    """Emit acc + sums of four u8 x i8 products; ``wide`` for codes above 127."""
    form = _wide if wide else _narrow
    return by_pieces(builder, lambda a, u, s: form(builder, a, u, s), 8, acc, unsigned, signed)


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
