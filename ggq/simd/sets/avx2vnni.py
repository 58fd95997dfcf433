"""AVX2 with AVX-VNNI: the dot instruction of AVX-512 on vectors of 256 bits, the rest as AVX2."""

from ggq.simd.declared import InstructionSet, x86_with
from ggq.simd.lowering import by_pieces
from ggq.simd.sets.avx2 import lookup8, lookup16
from ggq.simd.sets.avx512 import vpdpbusd

__all__ = ["SET", "dot4", "lookup8", "lookup16"]

SET = InstructionSet(
    rank=20,
    runs_on=x86_with("avxvnni", "avx2", "fma", "f16c"),
    cpu="alderlake",
    features="+avx2,+avxvnni,+f16c,+fma",
    dot="vpdpbusd",
    lanes=8,
)


def dot4(builder, acc, unsigned, signed, wide):
    """Emit acc + sums of four u8 x i8 products; exact for every u8."""
    return by_pieces(builder, lambda a, u, s: vpdpbusd(builder, a, u, s), 8, acc, unsigned, signed)
