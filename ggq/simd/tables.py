"""Constant tables inside compiled kernels and lookups in them; it knows no block type."""

from hashlib import sha256

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from ggq.simd.types import cast_type

_I8, _I32, _I64 = ir.IntType(8), ir.IntType(32), ir.IntType(64)


def _global_bytes(module, data: bytes):
    """Return the module's constant that holds ``data``; equal tables are one constant."""
    name = f"ggq_table_{sha256(data).hexdigest()[:16]}"
    found = module.globals.get(name)
    if found is None:
        found = ir.GlobalVariable(module, ir.ArrayType(_I8, len(data)), name)
        found.initializer = ir.Constant(found.value_type, bytearray(data))
        found.global_constant, found.linkage, found.align = True, "internal", 64
    return found


def constant_table(array: np.ndarray):
    """Return an intrinsic function without arguments that gives the address of a constant copy.

    The bytes live in the kernel itself, so that its cached code holds for every process.
    """
    data = np.ascontiguousarray(array).tobytes()

    @intrinsic
    def address(typingctx):
        def codegen(context, builder, sig, args):
            return builder.ptrtoint(_global_bytes(builder.module, data), _I64)

        return types.int64(), codegen

    return address


@intrinsic
def gather(typingctx, table, indices, index_kind, kind):
    """Return a vector of ``kind`` whose lane i is entry ``indices[i]`` of ``table``.

    Both are addresses; ``indices`` are consecutive unsigned integers of ``index_kind``. The loads
    are scalar: indices come straight from memory, and no processor gathers faster than that.
    """
    vector, index = cast_type(kind), cast_type(index_kind)

    def codegen(context, builder, sig, args):
        element, number = vector.llvm.element, ir.IntType(index.bitwidth)
        value = ir.Constant(vector.llvm, None)
        for i in range(vector.lanes):
            at = builder.add(args[1], ir.Constant(_I64, i * index.bitwidth // 8))
            entry = builder.load(builder.inttoptr(at, number.as_pointer()))
            entry.align = 1
            offset = builder.mul(builder.zext(entry, _I64), ir.Constant(_I64, element.width // 8))
            pointer = builder.inttoptr(builder.add(args[0], offset), element.as_pointer())
            lane = builder.load(pointer)
            lane.align = 1
            value = builder.insert_element(value, lane, ir.Constant(_I32, i))
        return value

    return vector(table, indices, index_kind, kind), codegen
