"""Memory by address as numba intrinsics: unaligned loads and stores, halves, scratch, prefetch.

Addresses are integers. Nothing here checks bounds: callers validate before a kernel runs.
"""

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from ggq.simd import isa
from ggq.simd.types import cast_type

_I32 = ir.IntType(32)


def pointer(builder, address, llvm_type):
    """Emit the integer ``address`` as a pointer to ``llvm_type``."""
    return builder.inttoptr(address, llvm_type.as_pointer())


@intrinsic
def load(typingctx, address, kind):
    """Load a vector or scalar of ``kind`` from an unaligned address."""
    if not isinstance(address, types.Integer):
        return None
    result = cast_type(kind)

    def codegen(context, builder, sig, args):
        llvm = context.get_value_type(result)
        value = builder.load(pointer(builder, args[0], llvm))
        value.align = 1
        return value

    return result(address, kind), codegen


@intrinsic
def store(typingctx, address, value):
    """Store a vector or scalar to an unaligned address."""

    def codegen(context, builder, sig, args):
        builder.store(args[1], pointer(builder, args[0], args[1].type)).align = 1
        return context.get_dummy_value()

    return types.void(address, value), codegen


@intrinsic
def load_half(typingctx, address):
    """Load one IEEE half and widen it to float32."""

    def codegen(context, builder, sig, args):
        bits = builder.load(pointer(builder, args[0], ir.IntType(16)))
        bits.align = 1
        return isa.half_to_float(builder, bits)

    return types.float32(address), codegen


@intrinsic
def store_half(typingctx, address, value):
    """Narrow a float32 to an IEEE half and store it."""
    if value != types.float32:
        return None

    def codegen(context, builder, sig, args):
        bits = isa.float_to_half(builder, args[1])
        builder.store(bits, pointer(builder, args[0], ir.IntType(16))).align = 1
        return context.get_dummy_value()

    return types.void(address, value), codegen


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


def _prefetch(locality, doc):
    @intrinsic
    def prefetched(typingctx, address):
        def codegen(context, builder, sig, args):
            at = pointer(builder, args[0], ir.IntType(8))
            hints = [ir.Constant(_I32, n) for n in (0, locality, 1)]  # read, locality, data
            kind = ir.FunctionType(ir.VoidType(), [at.type, _I32, _I32, _I32])
            name = "llvm.prefetch.p0"
            function = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
            builder.call(function, [at, *hints])
            return context.get_dummy_value()

        return types.void(address), codegen

    prefetched.__doc__ = doc
    return prefetched


prefetch = _prefetch(3, "Ask for the cache line at an address; any address is allowed.")
prefetch_far = _prefetch(2, "The same, but for the second-level cache: it is not used soon.")
