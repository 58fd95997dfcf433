"""Operations on SIMD vectors and raw addresses as numba intrinsics, portable to every LLVM target.

Addresses are integers. Nothing here checks bounds: callers validate before a kernel runs.
"""

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic, overload

from ggq.simd import isa
from ggq.simd.types import Vector, cast_type, splat_value

_I32 = ir.IntType(32)


def _llvm_type(context, numba_type):
    return context.get_value_type(numba_type)


def _pointer(builder, address, llvm_type):
    return builder.inttoptr(address, llvm_type.as_pointer())


@intrinsic
def load(typingctx, address, kind):
    """Load a vector or scalar of ``kind`` from an unaligned address."""
    if not isinstance(address, types.Integer):
        return None
    result = cast_type(kind)

    def codegen(context, builder, sig, args):
        llvm = _llvm_type(context, result)
        value = builder.load(_pointer(builder, args[0], llvm))
        value.align = 1
        return value

    return result(address, kind), codegen


@intrinsic
def store(typingctx, address, value):
    """Store a vector or scalar to an unaligned address."""

    def codegen(context, builder, sig, args):
        pointer = _pointer(builder, args[0], args[1].type)
        builder.store(args[1], pointer).align = 1
        return context.get_dummy_value()

    return types.void(address, value), codegen


@intrinsic
def load_half(typingctx, address):
    """Load one IEEE half and widen it to float32."""

    def codegen(context, builder, sig, args):
        bits = builder.load(_pointer(builder, args[0], ir.IntType(16)))
        bits.align = 1
        return isa.half_to_float(builder, bits)

    return types.float32(address), codegen


@intrinsic
def splat(typingctx, value, kind):
    """Return a vector of ``kind`` with every lane equal to the scalar ``value``."""
    vector = cast_type(kind)

    def codegen(context, builder, sig, args):
        scalar = types.float32 if vector.element == "f32" else getattr(types, _NUMBA[vector.element])
        lane = context.cast(builder, args[0], sig.args[0], scalar)
        return splat_value(builder, vector, lane)

    return vector(value, kind), codegen


_NUMBA = {
    "i1": "boolean",
    "i8": "int8",
    "u8": "uint8",
    "i16": "int16",
    "u16": "uint16",
    "i32": "int32",
    "u32": "uint32",
    "i64": "int64",
}


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
        return _convert(builder, args[0], source, target)

    return target(value, kind), codegen


def _convert(builder, value, source, target):
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
            mask = ir.Constant(ir.VectorType(_I32, len(indices)), list(indices))
            return builder.shuffle_vector(args[0], args[1], mask)

        return result(a, b), codegen

    return shuffled


@intrinsic
def join(typingctx, low, high):
    """Concatenate two vectors of one type."""
    result = Vector(low.element, 2 * low.lanes)

    def codegen(context, builder, sig, args):
        mask = ir.Constant(ir.VectorType(_I32, result.lanes), list(range(result.lanes)))
        return builder.shuffle_vector(args[0], args[1], mask)

    return result(low, high), codegen


def _half(offset_of):
    @intrinsic
    def half(typingctx, value):
        result = Vector(value.element, value.lanes // 2)

        def codegen(context, builder, sig, args):
            start = offset_of(value.lanes)
            mask = ir.Constant(
                ir.VectorType(_I32, result.lanes), [start + i for i in range(result.lanes)]
            )
            return builder.shuffle_vector(args[0], args[0], mask)

        return result(value), codegen

    return half


low_half = _half(lambda lanes: 0)
high_half = _half(lambda lanes: lanes // 2)


@intrinsic
def lane(typingctx, value, index):
    """Return one lane of a vector as a scalar."""
    scalar = types.float32 if value.element == "f32" else getattr(types, _NUMBA[value.element])

    def codegen(context, builder, sig, args):
        position = context.cast(builder, args[1], sig.args[1], types.int32)
        return builder.extract_element(args[0], position)

    return scalar(value, index), codegen


@intrinsic
def with_lane(typingctx, value, index, scalar):
    """Return the vector with one lane replaced."""
    kind = types.float32 if value.element == "f32" else getattr(types, _NUMBA[value.element])

    def codegen(context, builder, sig, args):
        position = context.cast(builder, args[1], sig.args[1], types.int32)
        new = context.cast(builder, args[2], sig.args[2], kind)
        return builder.insert_element(args[0], new, position)

    return value(value, index, scalar), codegen


@intrinsic
def select(typingctx, mask, a, b):
    """Return lane by lane ``a`` where the i1 vector ``mask`` holds, else ``b``."""

    def codegen(context, builder, sig, args):
        return builder.select(*args)

    return (a(mask, a, b), codegen) if a == b else None


def _call(builder, name, result, args):
    module = builder.module
    function = module.globals.get(name)
    if function is None:
        function = ir.Function(module, ir.FunctionType(result, [a.type for a in args]), name)
    return builder.call(function, args)


def suffix(vector: Vector) -> str:
    """Return LLVM's overload suffix of a vector type, such as ``v16f32``."""
    return f"v{vector.lanes}{'f' if vector.is_float else 'i'}{vector.element[1:]}"


def _elementwise(name_of):
    def make(arity):
        def emit(context, builder, sig, args):
            vector = sig.return_type
            return _call(builder, f"llvm.{name_of(vector)}.{suffix(vector)}", vector.llvm, args)

        return emit

    return make


def _unary(name_of, doc):
    emit = _elementwise(name_of)(1)

    @intrinsic
    def unary(typingctx, a):
        return (a(a), emit) if isinstance(a, Vector) else None

    unary.__doc__ = doc
    return unary


def _binary(name_of, doc):
    emit = _elementwise(name_of)(2)

    @intrinsic
    def binary(typingctx, a, b):
        return (a(a, b), emit) if isinstance(a, Vector) and a == b else None

    binary.__doc__ = doc
    return binary


def _minimum_name(kind):
    return lambda v: f"{kind}num" if v.is_float else ("s" if v.is_signed else "u") + kind


vmin = _binary(_minimum_name("min"), "Return the smaller of two values lane by lane.")
vmax = _binary(_minimum_name("max"), "Return the larger of two values lane by lane.")
sqrt = _unary(lambda v: "sqrt", "Return the square root lane by lane.")
floor = _unary(lambda v: "floor", "Round towards minus infinity lane by lane.")
rint = _unary(lambda v: "rint", "Round to the nearest integer, half to even, lane by lane.")
round_away = _unary(lambda v: "round", "Round to the nearest integer, half away from zero (roundf).")
fabs = _unary(lambda v: "fabs", "Return the absolute value lane by lane.")


@intrinsic
def fma(typingctx, a, b, c):
    """Return a * b + c with one rounding, lane by lane."""

    def codegen(context, builder, sig, args):
        return _call(builder, f"llvm.fma.{suffix(a)}", a.llvm, args)

    return (a(a, b, c), codegen) if a == b == c else None


@intrinsic
def reduce_add(typingctx, value):
    """Return the sum of all lanes (floats: in any order)."""
    scalar = types.float32 if value.is_float else getattr(types, _NUMBA[value.element])

    def codegen(context, builder, sig, args):
        element = value.llvm.element
        if not value.is_float:
            return _call(builder, f"llvm.vector.reduce.add.{suffix(value)}", element, args)
        name = f"llvm.vector.reduce.fadd.{suffix(value)}"
        module = builder.module
        function = module.globals.get(name)
        if function is None:
            kind = ir.FunctionType(element, [element, value.llvm])
            function = ir.Function(module, kind, name)
        return builder.call(function, [ir.Constant(element, -0.0), args[0]], fastmath=("reassoc",))

    return scalar(value), codegen


@intrinsic
def reduce_max(typingctx, value):
    """Return the largest lane."""
    scalar = types.float32 if value.is_float else getattr(types, _NUMBA[value.element])

    def codegen(context, builder, sig, args):
        kind = "fmax" if value.is_float else ("smax" if value.is_signed else "umax")
        return _call(
            builder, f"llvm.vector.reduce.{kind}.{suffix(value)}", value.llvm.element, args
        )

    return scalar(value), codegen


@intrinsic
def any_lane(typingctx, mask):
    """Return whether any lane of an i1 vector holds."""

    def codegen(context, builder, sig, args):
        return _call(builder, f"llvm.vector.reduce.or.{suffix(mask)}", ir.IntType(1), args)

    return types.boolean(mask), codegen


@intrinsic
def dot4(typingctx, acc, unsigned, signed):
    """Return acc + the sums of four products u8 x i8 per 32-bit lane; codes up to 127 only."""

    def codegen(context, builder, sig, args):
        return isa.dot4(builder, *args, wide=False)

    return acc(acc, unsigned, signed), codegen


@intrinsic
def dot4_wide(typingctx, acc, unsigned, signed):
    """Return acc + the sums of four products u8 x i8 per 32-bit lane for the whole range of u8."""

    def codegen(context, builder, sig, args):
        return isa.dot4(builder, *args, wide=True)

    return acc(acc, unsigned, signed), codegen


@intrinsic
def stack(typingctx, nbytes):
    """Reserve ``nbytes`` (a literal) of 64-byte aligned scratch in this function's frame."""
    if not isinstance(nbytes, types.IntegerLiteral):
        return None
    size = nbytes.literal_value

    def codegen(context, builder, sig, args):
        with builder.goto_entry_block():
            block = builder.alloca(ir.ArrayType(ir.IntType(8), size))
            block.align = 64
        return builder.ptrtoint(block, ir.IntType(64))

    return types.int64(nbytes), codegen


@intrinsic
def lookup16(typingctx, table, index):
    """Return ``table[index]`` per byte: a 16-entry table held in an u8x16/i8x16, indices 0..15."""

    def codegen(context, builder, sig, args):
        return isa.lookup16(builder, *args)

    return Vector(table.element, index.lanes)(table, index), codegen


@intrinsic
def mask64(typingctx, bits):
    """Return an i1 vector of 64 lanes from the bits of a 64-bit integer, lowest first."""
    result = Vector("i1", 64)

    def codegen(context, builder, sig, args):
        return builder.bitcast(args[0], result.llvm)

    return result(bits), codegen


@intrinsic
def spread(typingctx, values, quarter):
    """Return 16 lanes that repeat the ``quarter``-th (a literal) quarter of ``values`` evenly."""
    if not isinstance(quarter, types.IntegerLiteral):
        return None
    share = values.lanes // 4
    indices = [quarter.literal_value * share + i * share // 16 for i in range(16)]
    result = Vector(values.element, 16)

    def codegen(context, builder, sig, args):
        mask = ir.Constant(ir.VectorType(_I32, 16), indices)
        return builder.shuffle_vector(args[0], args[0], mask)

    return result(values, quarter), codegen


@intrinsic
def transpose16(typingctx, source, source_stride, target, target_stride):
    """Transpose a 16 x 16 matrix of 32-bit elements from memory to memory; strides in bytes."""

    def codegen(context, builder, sig, args):
        src, src_step, dst, dst_step = args
        row = ir.VectorType(_I32, 16)
        rows = []
        for i in range(16):
            at = builder.add(src, builder.mul(src_step, ir.Constant(src_step.type, i)))
            value = builder.load(_pointer(builder, at, row))
            value.align = 1
            rows.append(value)
        for step in (1, 2, 4, 8):  # exchange lanes whose index differs in one bit
            rows = _exchange(builder, rows, step)
        for i, value in enumerate(rows):
            at = builder.add(dst, builder.mul(dst_step, ir.Constant(dst_step.type, i)))
            builder.store(value, _pointer(builder, at, row)).align = 1
        return context.get_dummy_value()

    return types.void(source, source_stride, target, target_stride), codegen


def _exchange(builder, rows, step):
    """One stage of the transpose: swap the off-diagonal ``step`` x ``step`` blocks of row pairs."""
    low = [i if not i & step else 16 + (i ^ step) for i in range(16)]
    high = [(i | step) if not i & step else 16 + i for i in range(16)]
    kind = ir.VectorType(_I32, 16)
    result = list(rows)
    for i in range(16):
        if not i & step:
            a, b = rows[i], rows[i | step]
            result[i] = builder.shuffle_vector(a, b, ir.Constant(kind, low))
            result[i | step] = builder.shuffle_vector(a, b, ir.Constant(kind, high))
    return result


@overload(len)
def _lanes(value):
    if isinstance(value, Vector):
        count = value.lanes
        return lambda value: count
    return None


@intrinsic
def store_half(typingctx, address, value):
    """Narrow a float32 to an IEEE half and store it."""
    if value != types.float32:
        return None

    def codegen(context, builder, sig, args):
        bits = isa.float_to_half(builder, args[1])
        builder.store(bits, _pointer(builder, args[0], ir.IntType(16))).align = 1
        return context.get_dummy_value()

    return types.void(address, value), codegen


@intrinsic
def prefetch(typingctx, address):
    """Ask for the cache line at an address; any address is allowed."""

    def codegen(context, builder, sig, args):
        pointer = _pointer(builder, args[0], ir.IntType(8))
        hints = [ir.Constant(_I32, n) for n in (0, 3, 1)]  # read, keep in all caches, data
        kind = ir.FunctionType(ir.VoidType(), [pointer.type, _I32, _I32, _I32])
        name = "llvm.prefetch.p0"
        function = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
        builder.call(function, [pointer, *hints])
        return context.get_dummy_value()

    return types.void(address), codegen
