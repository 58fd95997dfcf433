"""SIMD vectors as numba types: type, LLVM model, operators. No kernel, no instruction set.

A vector is written element x lanes (``f32x16``). Kernels use 512-bit vectors everywhere; LLVM
splits them for narrower machines, so one kernel source serves every instruction set.
"""

import operator

from llvmlite import ir
from numba.core import types
from numba.core.typing.templates import signature
from numba.extending import lower_builtin, models, register_model, type_callable

_ELEMENTS = {
    "i1": ir.IntType(1),
    "i8": ir.IntType(8),
    "u8": ir.IntType(8),
    "i16": ir.IntType(16),
    "u16": ir.IntType(16),
    "i32": ir.IntType(32),
    "u32": ir.IntType(32),
    "i64": ir.IntType(64),
    "f16": ir.HalfType(),
    "f32": ir.FloatType(),
}
_SCALARS = {  # halves are moved and widened only: numba's CPU target has no scalar of theirs
    "i1": types.boolean,
    "i8": types.int8,
    "u8": types.uint8,
    "i16": types.int16,
    "u16": types.uint16,
    "i32": types.int32,
    "u32": types.uint32,
    "i64": types.int64,
    "f32": types.float32,
}


class Vector(types.Type):
    """A fixed number of lanes of one element kind."""

    def __init__(self, element: str, lanes: int):
        self.element, self.lanes = element, lanes
        self.llvm = ir.VectorType(_ELEMENTS[element], lanes)
        super().__init__(name=f"{element}x{lanes}")

    @property
    def key(self):
        """Return what numba tells types apart by."""
        return self.name

    @property
    def is_float(self) -> bool:
        """Return whether lanes are floats."""
        return self.element[0] == "f"

    @property
    def is_signed(self) -> bool:
        """Return whether lanes are compared, widened and shifted as signed numbers."""
        return self.element[0] != "u"

    @property
    def scalar(self):
        """Return the numba type of one lane."""
        return _SCALARS[self.element]

    def with_element(self, element: str) -> "Vector":
        """Return the type with as many lanes of another element."""
        return Vector(element, self.lanes)


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, dmm, fe_type):
        super().__init__(dmm, fe_type, fe_type.llvm)


def constant(vector: Vector, values) -> ir.Constant:
    """Return an LLVM constant of ``vector``'s type from one value per lane."""
    return ir.Constant(vector.llvm, list(values))


def splat_value(builder, vector: Vector, value):
    """Emit a vector whose lanes all hold the LLVM scalar ``value``."""
    lane = builder.insert_element(
        ir.Constant(vector.llvm, ir.Undefined), value, ir.Constant(ir.IntType(32), 0)
    )
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), vector.lanes), None)
    return builder.shuffle_vector(lane, ir.Constant(vector.llvm, ir.Undefined), zeros)


_ARITHMETIC = {
    operator.add: ("add", "fadd"),
    operator.sub: ("sub", "fsub"),
    operator.mul: ("mul", "fmul"),
    operator.truediv: (None, "fdiv"),
    operator.and_: ("and_", None),
    operator.or_: ("or_", None),
    operator.xor: ("xor", None),
    operator.lshift: ("shl", None),
    operator.rshift: ("ashr", None),
}
_COMPARISONS = {
    operator.lt: "<",
    operator.le: "<=",
    operator.gt: ">",
    operator.ge: ">=",
    operator.eq: "==",
    operator.ne: "!=",
}


def _register_arithmetic(op, names):
    int_name, float_name = names

    @type_callable(op)
    def typer(context):
        def typed(a, b):
            if isinstance(a, Vector) and a == b:
                return a if (float_name if a.is_float else int_name) else None
            return None

        return typed

    @lower_builtin(op, Vector, Vector)
    def lower(context, builder, sig, args):
        name = float_name if sig.return_type.is_float else int_name
        if name == "ashr" and not sig.return_type.is_signed:
            name = "lshr"
        return getattr(builder, name)(*args)


def _register_comparison(op, symbol):
    @type_callable(op)
    def typer(context):
        def typed(a, b):
            return a.with_element("i1") if isinstance(a, Vector) and a == b else None

        return typed

    @lower_builtin(op, Vector, Vector)
    def lower(context, builder, sig, args):
        vector = sig.args[0]
        if vector.is_float:
            # C's comparison: != holds for NaN, the others do not.
            emit = builder.fcmp_unordered if symbol == "!=" else builder.fcmp_ordered
            return emit(symbol, *args)
        emit = builder.icmp_signed if vector.is_signed else builder.icmp_unsigned
        return emit(symbol, *args)


for _op, _names in _ARITHMETIC.items():
    _register_arithmetic(_op, _names)
for _op, _symbol in _COMPARISONS.items():
    _register_comparison(_op, _symbol)


@type_callable(operator.neg)
def _type_neg(context):
    return lambda a: a if isinstance(a, Vector) else None


@lower_builtin(operator.neg, Vector)
def _lower_neg(context, builder, sig, args):
    return builder.fneg(args[0]) if sig.return_type.is_float else builder.neg(args[0])


@type_callable(operator.invert)
def _type_invert(context):
    return lambda a: a if isinstance(a, Vector) and not a.is_float else None


@lower_builtin(operator.invert, Vector)
def _lower_invert(context, builder, sig, args):
    return builder.not_(args[0])


def cast_type(value) -> Vector:
    """Return the vector or scalar numba type behind a type reference seen by an intrinsic."""
    return value.instance_type if isinstance(value, types.TypeRef) else value.dtype


__all__ = ["Vector", "cast_type", "constant", "signature", "splat_value"]
