"""Any LLVM target: widening multiplies and adds, selects for lookups; no special instruction."""

from llvmlite import ir

from ggq.simd.declared import MACHINE, InstructionSet
from ggq.simd.lowering import I16, I32, by_pieces, select_lookup8, select_lookup16, splat

SET = InstructionSet(
    rank=0,
    runs_on=lambda machine, features: True,
    cpu="x86-64" if MACHINE == "x86" else "generic",
    features="" if MACHINE == "x86" else "+neon",
    dot=None,
    has_half=False,
    has_fma=False,
)


def _widen(builder, acc, unsigned, signed):
    """16-bit products are exact (255 x 128 fits); even and odd ones are summed in 32 bit."""
    count = unsigned.type.count
    wide = ir.VectorType(I16, count)
    products = builder.mul(builder.zext(unsigned, wide), builder.sext(signed, wide))
    words = ir.VectorType(I32, count // 2)
    both = builder.bitcast(products, words)
    sixteen = splat(words, 16)
    pairs = builder.add(
        builder.ashr(builder.shl(both, sixteen), sixteen), builder.ashr(both, sixteen)
    )
    even = ir.Constant(ir.VectorType(I32, count // 4), list(range(0, count // 2, 2)))
    odd = ir.Constant(ir.VectorType(I32, count // 4), list(range(1, count // 2, 2)))
    fours = builder.add(
        builder.shuffle_vector(pairs, pairs, even), builder.shuffle_vector(pairs, pairs, odd)
    )
    return builder.add(acc, fours)


def dot4(builder, acc, unsigned, signed, wide):
    """Emit acc + sums of four u8 x i8 products; exact for every u8."""
    return by_pieces(builder, lambda a, u, s: _widen(builder, a, u, s), 4, acc, unsigned, signed)


lookup8 = select_lookup8
lookup16 = select_lookup16
