"""The chosen instruction set's few special operations.

It emits LLVM for already typed values and knows neither numba's typing nor any kernel.
"""

from llvmlite import ir

from ggq.simd.target import CHOSEN

SET = CHOSEN.SET
dot4, lookup8, lookup16 = CHOSEN.dot4, CHOSEN.lookup8, CHOSEN.lookup16


def _dots(builder, codes, activations, largest, halves):
    """Emit the sum of four dot4."""
    total = ir.Constant(ir.VectorType(ir.IntType(32), 16), None)
    for unsigned, signed in zip(codes, activations, strict=True):
        total = dot4(builder, total, unsigned, signed, wide=largest > 127)
    return total


dots = getattr(CHOSEN, "dots", _dots)


def _products(builder, total, codes, activations, largest):
    """Emit ``total`` plus a dot4 of each pair."""
    for unsigned, signed in zip(codes, activations, strict=True):
        total = dot4(builder, total, unsigned, signed, wide=largest > 127)
    return total


products = getattr(CHOSEN, "products", _products)


def _like(value_type, element):
    is_vector = isinstance(value_type, ir.VectorType)
    return ir.VectorType(element, value_type.count) if is_vector else element


def _fill(kind, value):
    return ir.Constant(kind, [value] * kind.count if isinstance(kind, ir.VectorType) else value)


def half_to_float(builder, bits):
    """Widen i16 bit patterns of IEEE halves to float (scalar or vector)."""
    if SET.has_half:
        return builder.fpext(
            builder.bitcast(bits, _like(bits.type, ir.HalfType())), _like(bits.type, ir.FloatType())
        )
    # Integer form for machines without a conversion instruction: shift exponent and mantissa into
    # place, scale by 2^112 (exact, subnormals included), then restore infinities and NaN.
    i32, f32 = _like(bits.type, ir.IntType(32)), _like(bits.type, ir.FloatType())
    wide = builder.zext(bits, i32)
    sign = builder.shl(builder.and_(wide, _fill(i32, 0x8000)), _fill(i32, 16))
    magnitude = builder.and_(wide, _fill(i32, 0x7FFF))
    shifted = builder.bitcast(builder.shl(magnitude, _fill(i32, 13)), f32)
    scaled = builder.bitcast(builder.fmul(shifted, _fill(f32, 2.0**112)), i32)
    special = builder.icmp_unsigned(">=", magnitude, _fill(i32, 0x7C00))
    infinite = builder.or_(builder.shl(magnitude, _fill(i32, 13)), _fill(i32, 0x7F800000))
    return builder.bitcast(builder.or_(builder.select(special, infinite, scaled), sign), f32)


def float_to_half(builder, value):
    """Narrow floats to i16 bit patterns of IEEE halves, half to even (scalar or vector)."""
    i16 = _like(value.type, ir.IntType(16))
    if SET.has_half:
        return builder.bitcast(builder.fptrunc(value, _like(value.type, ir.HalfType())), i16)
    i32, f32 = _like(value.type, ir.IntType(32)), value.type
    bits = builder.bitcast(value, i32)
    sign = builder.lshr(builder.and_(bits, _fill(i32, 0x80000000)), _fill(i32, 16))
    magnitude = builder.and_(bits, _fill(i32, 0x7FFFFFFF))
    # Subnormal results: adding 0.5 leaves the rounded mantissa in the low bits.
    shifted = builder.fadd(builder.bitcast(magnitude, f32), _fill(f32, 0.5))
    subnormal = builder.sub(builder.bitcast(shifted, i32), _fill(i32, 0x3F000000))
    odd = builder.and_(builder.lshr(magnitude, _fill(i32, 13)), _fill(i32, 1))
    rounded = builder.add(builder.add(magnitude, _fill(i32, 0xC8000FFF)), odd)  # rebias, then round
    normal = builder.lshr(rounded, _fill(i32, 13))
    small = builder.icmp_unsigned("<", magnitude, _fill(i32, 0x38800000))
    result = builder.select(small, subnormal, normal)
    overflow = builder.icmp_unsigned(">=", magnitude, _fill(i32, 0x477FF000))
    result = builder.select(overflow, _fill(i32, 0x7C00), result)
    nan = builder.icmp_unsigned(">", magnitude, _fill(i32, 0x7F800000))
    result = builder.select(nan, _fill(i32, 0x7E00), result)
    return builder.trunc(builder.or_(result, sign), i16)
