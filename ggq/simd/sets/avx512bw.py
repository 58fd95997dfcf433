"""AVX-512 without VNNI (Skylake's): AVX2's multiply-adds on registers of 512 bits."""

from ggq.simd.declared import InstructionSet, x86_with
from ggq.simd.multiply_add import MultiplyAdd
from ggq.simd.sets.avx512 import lookup8, lookup16

__all__ = ["SET", "dot4", "dots", "lookup8", "lookup16", "products"]

SET = InstructionSet(
    rank=25,
    runs_on=x86_with("avx512bw", "avx512vl", "avx512dq", "fma", "f16c"),
    cpu="skylake-avx512",
    features="+avx512bw,+avx512vl,+avx512dq,+f16c,+fma",
    dot="vpmaddubsw",
    lanes=16,
    signed_wide=True,
    by_tokens=True,
)
_FORM = MultiplyAdd(16, "llvm.x86.avx512.pmaddubs.w.512", "llvm.x86.avx512.pmaddw.d.512")
dot4, dots, products = _FORM.dot4, _FORM.dots, _FORM.products
