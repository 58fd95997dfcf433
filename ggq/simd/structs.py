"""Memory with named fields, declared once: compiled functions read fields, recorders fill them.

A field is one 64-bit slot. In a kernel a block is its address with attributes: ``a.width`` loads,
``a.width = n`` stores. It knows no kernel.
"""

import struct
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.core.imputils import lower_getattr_generic, lower_setattr_generic
from numba.core.typing.templates import AttributeTemplate
from numba.extending import infer_getattr, intrinsic, models, register_model

__all__ = ["FLOAT", "INT", "ROWS", "Struct", "view"]

INT, FLOAT, ROWS = "int", "float", "rows"
_I64 = ir.IntType(64)


class Struct(types.Type):
    """Fields by name in the order of their slots; ``base``: the fields that come first.

    A field's kind: ``INT``, an int64 (a number or an address); ``FLOAT``, a float32 in the slot's
    low half; ``ROWS``, two slots: the address of rows and, as NAME_stride, the bytes between them.
    """

    def __init__(self, name: str, base: "Struct | None" = None, **fields: str) -> None:
        self.fields = {**(base.fields if base else {}), **fields}
        self.slots: dict[str, str] = {}
        for field, kind in self.fields.items():
            self.slots[field] = FLOAT if kind == FLOAT else INT
            if kind == ROWS:
                self.slots[f"{field}_stride"] = INT
        self.nbytes = 8 * len(self.slots)
        super().__init__(name=f"{name}{tuple(self.slots.items())}")

    def offset(self, slot: str) -> int:
        """Return where a slot lies, in bytes."""
        return 8 * list(self.slots).index(slot)

    def filled(self, **values: Any) -> list[Any]:
        """Return what the slots hold. None is 0; ROWS take a buffer or (address, stride)."""
        if missing := self.fields.keys() ^ values.keys():
            raise TypeError(f"fields that are missing or unknown: {', '.join(sorted(missing))}")
        found: list[Any] = []
        for field, kind in self.fields.items():
            value = values[field]
            if kind == ROWS:
                pair = value if isinstance(value, tuple) else (value, value and value.stride)
                found += [part or 0 for part in pair]
            elif kind == FLOAT:
                found += struct.unpack("<i", struct.pack("<f", value))
            else:
                found.append(value or 0)
        return found


@register_model(Struct)
class _StructModel(models.PrimitiveModel):
    def __init__(self, dmm, fe_type):
        super().__init__(dmm, fe_type, _I64)


@infer_getattr
class _StructAttributes(AttributeTemplate):
    key = Struct

    def generic_resolve(self, typ, attr):
        if attr == "address":
            return types.int64
        return {INT: types.int64, FLOAT: types.float32}.get(typ.slots.get(attr))


def _pointer(builder, typ, address, slot):
    kind = ir.FloatType() if typ.slots[slot] == FLOAT else _I64
    at = builder.add(address, ir.Constant(_I64, typ.offset(slot)))
    return builder.inttoptr(at, kind.as_pointer())


@lower_getattr_generic(Struct)
def _load(context, builder, typ, value, attr):
    if attr == "address":
        return value
    loaded = builder.load(_pointer(builder, typ, value, attr))
    loaded.align = 1
    return loaded


@lower_setattr_generic(Struct)
def _store(context, builder, sig, args, attr):
    typ, kind = sig.args
    wanted = types.float32 if typ.slots[attr] == FLOAT else types.int64
    value = context.cast(builder, args[1], kind, wanted)
    builder.store(value, _pointer(builder, typ, args[0], attr)).align = 1


@intrinsic
def view(typingctx, address, block):
    """Return the block of a declared kind at an address."""
    kind = block.instance_type if isinstance(block, types.TypeRef) else block.dtype

    def codegen(context, builder, sig, args):
        return args[0]

    return kind(types.int64, block), codegen
