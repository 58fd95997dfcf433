"""Blocks of named fields (structs.py) as numba types: attributes load and store."""

from llvmlite import ir
from numba.core import types
from numba.core.imputils import lower_getattr_generic, lower_setattr_generic
from numba.core.typing.templates import AttributeTemplate
from numba.extending import infer_getattr, intrinsic, models, register_model

from ggq.simd.structs import FLOAT, INT, Struct

__all__ = ["Block", "view"]

_I64 = ir.IntType(64)


class Block(types.Type):
    """The type of a block: its address is the value."""

    def __init__(self, struct: Struct) -> None:
        self.struct = struct
        super().__init__(name=struct.name)


@register_model(Block)
class _BlockModel(models.PrimitiveModel):
    def __init__(self, dmm, fe_type):
        super().__init__(dmm, fe_type, _I64)


@infer_getattr
class _BlockAttributes(AttributeTemplate):
    key = Block

    def generic_resolve(self, typ, attr):
        if attr == "address":
            return types.int64
        return {INT: types.int64, FLOAT: types.float32}.get(typ.struct.slots.get(attr))


def _pointer(builder, typ, address, slot):
    kind = ir.FloatType() if typ.struct.slots[slot] == FLOAT else _I64
    at = builder.add(address, ir.Constant(_I64, typ.struct.offset(slot)))
    return builder.inttoptr(at, kind.as_pointer())


@lower_getattr_generic(Block)
def _load(context, builder, typ, value, attr):
    if attr == "address":
        return value
    loaded = builder.load(_pointer(builder, typ, value, attr))
    loaded.align = 1
    return loaded


@lower_setattr_generic(Block)
def _store(context, builder, sig, args, attr):
    typ, kind = sig.args
    wanted = types.float32 if typ.struct.slots[attr] == FLOAT else types.int64
    value = context.cast(builder, args[1], kind, wanted)
    builder.store(value, _pointer(builder, typ, args[0], attr)).align = 1


@intrinsic
def view(typingctx, address, block):
    """Return the block of a declared kind at an address."""
    kind = block.instance_type if isinstance(block, types.TypeRef) else block.dtype

    def codegen(context, builder, sig, args):
        return args[0]

    return kind(types.int64, block), codegen
