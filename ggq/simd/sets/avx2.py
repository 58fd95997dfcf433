"""AVX2: pairs of multiply-adds stand in for the dot instruction."""

from functools import reduce

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
    signed_wide=True,
)


_BYTES, _WORDS, _SUMS = ir.VectorType(I8, 32), ir.VectorType(I16, 16), ir.VectorType(I32, 8)


def _pairs(builder, unsigned, signed):
    """vpmaddubsw saturates beyond 16 bit: right for codes up to 128 (2 x 128 x 127 fits)."""
    return call(builder, "llvm.x86.avx2.pmadd.ub.sw", _WORDS, [unsigned, signed])


def _fours(builder, pairs):
    return call(builder, "llvm.x86.avx2.pmadd.wd", _SUMS, [pairs, splat(_WORDS, 1)])


def _magnitude_and_signed(builder, codes, activations):
    """Return |code - 128| and the activations with the sign of code - 128: the same products."""
    number = builder.xor(codes, splat(_BYTES, 128))
    negated = builder.sub(splat(_BYTES, 0), number)
    negative = builder.icmp_signed("<", number, splat(_BYTES, 0))
    magnitude = builder.select(negative, negated, number)
    name = "llvm.x86.avx2.psign.b"
    return magnitude, call(builder, name, _BYTES, [activations, number])


def dot4(builder, acc, unsigned, signed, wide):
    """Emit acc + sums of four products; with ``wide``, codes less 128 (signed_wide)."""

    def emit(acc, codes, activations):
        if wide:
            codes, activations = _magnitude_and_signed(builder, codes, activations)
        return builder.add(acc, _fours(builder, _pairs(builder, codes, activations)))

    return by_pieces(builder, emit, 8, acc, unsigned, signed)


def terms(largest):
    """Return how many results of vpmaddubsw can be added in 16 bits: 1, 2, 4 or 8."""
    fit = 32767 // (2 * 127 * min(largest, 128))
    return 1 << min(fit, 8).bit_length() - 1


def dots(builder, codes, activations, largest, halves):
    """Emit the sums of four dot4, added in 16 bits as long as that is exact."""
    pairs = []
    for half in range(2):
        for code, activation in zip(codes, activations, strict=True):
            code, activation = (lanes_of(builder, v, 32 * half, 32) for v in (code, activation))
            if largest > 127:
                code, activation = _magnitude_and_signed(builder, code, activation)
            pairs.append(_pairs(builder, code, activation))
    together = min(terms(largest), 8 if halves else 4)
    groups = [pairs[i : i + together] for i in range(0, 8, together)]
    fours = [_fours(builder, reduce(builder.add, group)) for group in groups]
    if halves:
        return concatenate(builder, [reduce(builder.add, fours), splat(_SUMS, 0)])
    n = len(fours) // 2
    return concatenate(builder, [reduce(builder.add, part) for part in (fours[:n], fours[n:])])


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
