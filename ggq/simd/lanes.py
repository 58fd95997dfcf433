"""Making vectors, converting them and moving their lanes, as numba intrinsics.

It knows no arithmetic and no memory.
"""

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic, overload

from ggq.simd import isa
from ggq.simd.types import Vector, cast_type, splat_value


def _pick(builder, a, b, indices):
    """Emit the lanes ``indices`` of the concatenation of ``a`` and ``b``."""
    indices = list(indices)
    mask = ir.Constant(ir.VectorType(ir.IntType(32), len(indices)), indices)
    return builder.shuffle_vector(a, b, mask)


@intrinsic
def splat(typingctx, value, kind):
    """Return a vector of ``kind`` with every lane equal to the scalar ``value``."""
    vector = cast_type(kind)

    def codegen(context, builder, sig, args):
        scalar = context.cast(builder, args[0], sig.args[0], vector.scalar)
        return splat_value(builder, vector, scalar)

    return vector(value, kind), codegen


@intrinsic
def zeros(typingctx, kind):
    """Return a vector of ``kind`` with every lane zero."""
    vector = cast_type(kind)

    def codegen(context, builder, sig, args):
        return ir.Constant(vector.llvm, None)

    return vector(kind), codegen


def vector_constant(vector: Vector, values):
    """Return an intrinsic function without arguments that gives a constant vector."""
    values = tuple(values)

    @intrinsic
    def constant(typingctx):
        def codegen(context, builder, sig, args):
            return ir.Constant(vector.llvm, list(values))

        return vector(), codegen

    return constant


@intrinsic
def bitcast(typingctx, value, kind):
    """Reinterpret the bits of a vector as another vector type of the same size."""
    vector = cast_type(kind)

    def codegen(context, builder, sig, args):
        return builder.bitcast(args[0], vector.llvm)

    return vector(value, kind), codegen


@intrinsic
def convert(typingctx, value, kind):
    """Convert lane by lane; float to integer truncates, half widens exactly."""
    source, target = value, cast_type(kind)
    if not isinstance(source, Vector) or source.lanes != target.lanes:
        return None

    def codegen(context, builder, sig, args):
        return _emit_convert(builder, args[0], source, target)

    return target(value, kind), codegen


def _emit_convert(builder, value, source, target):
    if source.element == "f16" and target.element == "f32":
        bits = builder.bitcast(value, source.with_element("u16").llvm)
        return isa.half_to_float(builder, bits)
    if source.element == "f32" and target.element == "f16":
        bits = isa.float_to_half(builder, value)
        return builder.bitcast(bits, target.llvm)
    if source.is_float:
        return (builder.fptosi if target.is_signed else builder.fptoui)(value, target.llvm)
    if target.is_float:
        return (builder.sitofp if source.is_signed else builder.uitofp)(value, target.llvm)
    wide, narrow = target.llvm.element.width, source.llvm.element.width
    if wide == narrow:
        return value
    if wide < narrow:
        return builder.trunc(value, target.llvm)
    signed = source.is_signed and source.element != "i1"
    return (builder.sext if signed else builder.zext)(value, target.llvm)


def shuffle(indices):
    """Return an intrinsic ``f(a, b)`` that picks lanes of the concatenation of ``a`` and ``b``."""
    indices = tuple(indices)

    @intrinsic
    def shuffled(typingctx, a, b):
        result = Vector(a.element, len(indices))

        def codegen(context, builder, sig, args):
            return _pick(builder, args[0], args[1], indices)

        return result(a, b), codegen

    return shuffled


@intrinsic
def join(typingctx, low, high):
    """Concatenate two vectors of one type."""
    result = Vector(low.element, 2 * low.lanes)

    def codegen(context, builder, sig, args):
        return _pick(builder, args[0], args[1], range(result.lanes))

    return result(low, high), codegen


def _half(offset_of):
    @intrinsic
    def half(typingctx, value):
        result = Vector(value.element, value.lanes // 2)

        def codegen(context, builder, sig, args):
            start = offset_of(value.lanes)
            return _pick(builder, args[0], args[0], range(start, start + result.lanes))

        return result(value), codegen

    return half


low_half = _half(lambda lanes: 0)
high_half = _half(lambda lanes: lanes // 2)


@intrinsic
def spread(typingctx, values, quarter):
    """Return 16 lanes that repeat the ``quarter``-th (a literal) quarter of ``values`` evenly."""
    if not isinstance(quarter, types.IntegerLiteral):
        return None
    share = values.lanes // 4
    indices = [quarter.literal_value * share + i * share // 16 for i in range(16)]
    result = Vector(values.element, 16)

    def codegen(context, builder, sig, args):
        return _pick(builder, args[0], args[0], indices)

    return result(values, quarter), codegen


@intrinsic
def lane(typingctx, value, index):
    """Return one lane of a vector as a scalar."""

    def codegen(context, builder, sig, args):
        position = context.cast(builder, args[1], sig.args[1], types.int32)
        return builder.extract_element(args[0], position)

    return value.scalar(value, index), codegen


@intrinsic
def with_lane(typingctx, value, index, scalar):
    """Return the vector with one lane replaced."""

    def codegen(context, builder, sig, args):
        position = context.cast(builder, args[1], sig.args[1], types.int32)
        new = context.cast(builder, args[2], sig.args[2], value.scalar)
        return builder.insert_element(args[0], new, position)

    return value(value, index, scalar), codegen


@intrinsic
def lookup16(typingctx, table, index):
    """Return ``table[index]`` per byte: a 16-entry table held in an u8x16/i8x16, indices 0..15."""

    def codegen(context, builder, sig, args):
        return isa.lookup16(builder, *args)

    return Vector(table.element, index.lanes)(table, index), codegen


@intrinsic
def lookup8(typingctx, table, index):
    """Return ``table[index % 8]`` per lane: an f32x16 whose halves are alike, indices u32x16."""

    def codegen(context, builder, sig, args):
        return isa.lookup8(builder, *args)

    return table(table, index), codegen


@intrinsic
def first_lane(typingctx, mask):
    """Return the number of the first lane of an i1x16 that holds, 16 if none does."""

    def codegen(context, builder, sig, args):
        bits = builder.bitcast(args[0], ir.IntType(mask.lanes))
        count = builder.cttz(bits, ir.Constant(ir.IntType(1), 0))
        return builder.zext(count, ir.IntType(64))

    return types.int64(mask), codegen


@intrinsic
def mask64(typingctx, bits):
    """Return an i1 vector of 64 lanes from the bits of a 64-bit integer, lowest first."""
    result = Vector("i1", 64)

    def codegen(context, builder, sig, args):
        return builder.bitcast(args[0], result.llvm)

    return result(bits), codegen


@overload(len)
def _lanes(value):
    if isinstance(value, Vector):
        count = value.lanes
        return lambda value: count
    return None
