"""AVX-512 with VNNI: one instruction for 64 products u8 x i8 into 16 sums."""

from functools import cache

from llvmlite import ir

from ggq.simd.declared import InstructionSet, x86_with
from ggq.simd.lowering import I8, by_pieces, call, concatenate, pieces

SET = InstructionSet(
    rank=30,
    runs_on=x86_with("avx512vnni", "avx512bw", "avx512vl"),
    cpu="cascadelake",  # the first with VNNI; as fast as code for its successors, measured
    features="+avx512vnni,+avx512bw,+avx512vl,+f16c,+fma",
    dot="vpdpbusd",
    lanes=16,
)


@cache
def _byte_operands():
    """LLVM 21 changed the operands' type from i32 to i8 vectors."""
    import llvmlite.binding as llvm  # 30 ms, for those who compile

    return llvm.llvm_version_info[0] >= 21


def vpdpbusd(builder, acc, unsigned, signed):
    """Emit the instruction for 4, 8 or 16 sums."""
    if not _byte_operands():
        unsigned, signed = builder.bitcast(unsigned, acc.type), builder.bitcast(signed, acc.type)
    bits = 32 * acc.type.count
    name = f"llvm.x86.avx512.vpdpbusd.{bits}"
    return call(builder, name, acc.type, [acc, unsigned, signed])


def dot4(builder, acc, unsigned, signed, wide):
    """Emit acc + sums of four u8 x i8 products; exact for every u8."""
    lanes = min(16, max(4, acc.type.count))
    return by_pieces(
        builder, lambda a, u, s: vpdpbusd(builder, a, u, s), lanes, acc, unsigned, signed
    )


def lookup16(builder, table, index):
    """Emit vpshufb on a table repeated in each 128-bit lane."""
    parts = []
    for part in pieces(builder, index, min(64, index.type.count)):
        count = part.type.count
        repeated = concatenate(builder, [table] * (count // 16))
        name = {16: "llvm.x86.ssse3.pshuf.b.128", 32: "llvm.x86.avx2.pshuf.b"}.get(
            count, "llvm.x86.avx512.pshuf.b.512"
        )
        parts.append(call(builder, name, ir.VectorType(I8, count), [repeated, part]))
    return concatenate(builder, parts)


def lookup8(builder, table, index):
    """Emit vpermps; it looks at four bits, and the table repeats after three."""
    return call(builder, "llvm.x86.avx512.permvar.sf.512", table.type, [table, index])
