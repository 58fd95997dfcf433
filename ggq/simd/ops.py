"""Arithmetic on SIMD vectors as numba intrinsics, portable to every LLVM target.

What Python writes as an operator is in ggq.simd.types; it knows no memory.
"""

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from ggq.simd import isa
from ggq.simd.lowering import pieces
from ggq.simd.types import Vector


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
    def emit(context, builder, sig, args):
        vector = sig.return_type
        return _call(builder, f"llvm.{name_of(vector)}.{suffix(vector)}", vector.llvm, args)

    return emit


def _unary(name_of, doc):
    emit = _elementwise(name_of)

    @intrinsic
    def unary(typingctx, a):
        return (a(a), emit) if isinstance(a, Vector) else None

    unary.__doc__ = doc
    return unary


def _binary(name_of, doc):
    emit = _elementwise(name_of)

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
round_away = _unary(
    lambda v: "round", "Round to the nearest integer, half away from zero (roundf)."
)
fabs = _unary(lambda v: "fabs", "Return the absolute value lane by lane.")


@intrinsic
def fma(typingctx, a, b, c):
    """Return a * b + c with one rounding, lane by lane."""

    def codegen(context, builder, sig, args):
        return _call(builder, f"llvm.fma.{suffix(a)}", a.llvm, args)

    return (a(a, b, c), codegen) if a == b == c else None


@intrinsic
def reduce_add(typingctx, value):
    """Return the sum of all lanes; of floats by halves: lane i and i + n / 2, again and again."""

    def codegen(context, builder, sig, args):
        if not value.is_float:
            name = f"llvm.vector.reduce.add.{suffix(value)}"
            return _call(builder, name, value.llvm.element, args)
        total = args[0]
        while total.type.count > 1:
            half = total.type.count // 2
            total = builder.fadd(*pieces(builder, total, half))
        return builder.extract_element(total, ir.Constant(ir.IntType(32), 0))

    return value.scalar(value), codegen


@intrinsic
def reduce_max(typingctx, value):
    """Return the largest lane."""

    def codegen(context, builder, sig, args):
        kind = "fmax" if value.is_float else ("smax" if value.is_signed else "umax")
        return _call(
            builder, f"llvm.vector.reduce.{kind}.{suffix(value)}", value.llvm.element, args
        )

    return value.scalar(value), codegen


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
    """Return the same for codes of the whole range of u8.

    Sets with ``signed_wide`` take the codes less 128: products of signed bytes.
    """

    def codegen(context, builder, sig, args):
        return isa.dot4(builder, *args, wide=True)

    return acc(acc, unsigned, signed), codegen


def products(largest):
    """Return an intrinsic ``f(sums, codes, activations)`` that adds products to sums of 32 bits.

    Both are tuples of vectors with 4 bytes for each sum, activations -127 .. 127. ``largest``: of
    the codes; if that is above 127, both hold 2 signed words for each sum instead.
    """

    @intrinsic
    def added(typingctx, sums, codes, activations):
        def codegen(context, builder, sig, args):
            total, *both = args
            both = [cgutils.unpack_tuple(builder, arg, len(codes)) for arg in both]
            return isa.products(builder, total, *both, largest)

        return sums(sums, codes, activations), codegen

    return added


def dots(largest, halves=False):
    """Return an intrinsic ``f(codes, activations)`` that adds up four products u8 x i8 per lane.

    Both are four vectors of 64 bytes; a 32-bit lane of the result is the exact sum of the 16
    products in that lane of the four. ``largest``: of the codes, those above 127 as dot4_wide has
    it; activations are -127 .. 127. With ``halves`` lanes i and i + 8 are added by the caller, and
    a set may leave their sum in lane i.
    """

    @intrinsic
    def sums(typingctx, codes, activations):
        def codegen(context, builder, sig, args):
            codes, activations = (cgutils.unpack_tuple(builder, arg, 4) for arg in args)
            return isa.dots(builder, codes, activations, largest, halves)

        return Vector("i32", 16)(codes, activations), codegen

    return sums
