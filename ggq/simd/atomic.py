"""Atomic memory, calls by address and the spin hint as numba intrinsics; it knows no plan."""

import platform

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

__all__ = [
    "atomic_add",
    "atomic_load",
    "atomic_store",
    "call_clock",
    "call_kernel",
    "call_plain",
    "compare_exchange",
    "pause",
]

_I64 = ir.IntType(64)


def _cell(builder, address):
    return builder.inttoptr(address, _I64.as_pointer())


@intrinsic
def atomic_load(typingctx, address):
    """Load an int64 so that what was written before its store is seen (acquire)."""

    def codegen(context, builder, sig, args):
        return builder.load_atomic(_cell(builder, args[0]), "acquire", 8)

    return types.int64(address), codegen


@intrinsic
def atomic_store(typingctx, address, value):
    """Store an int64 after everything written before (release)."""

    def codegen(context, builder, sig, args):
        value = context.cast(builder, args[1], sig.args[1], types.int64)
        builder.store_atomic(value, _cell(builder, args[0]), "release", 8)
        return context.get_dummy_value()

    return types.void(address, value), codegen


@intrinsic
def atomic_add(typingctx, address, value):
    """Add to an int64 and return what it was before."""

    def codegen(context, builder, sig, args):
        value = context.cast(builder, args[1], sig.args[1], types.int64)
        return builder.atomic_rmw("add", _cell(builder, args[0]), value, "acq_rel")

    return types.int64(address, value), codegen


@intrinsic
def compare_exchange(typingctx, address, expected, new):
    """Replace an int64 if it equals ``expected``; return whether it did."""

    def codegen(context, builder, sig, args):
        old = context.cast(builder, args[1], sig.args[1], types.int64)
        new = context.cast(builder, args[2], sig.args[2], types.int64)
        pair = builder.cmpxchg(_cell(builder, args[0]), old, new, "acq_rel", "acquire")
        return builder.extract_value(pair, 1)

    return types.boolean(address, expected, new), codegen


@intrinsic
def call_kernel(typingctx, address, args, first, last):
    """Call the kernel (jit.kernel) at ``address``."""

    def codegen(context, builder, sig, values):
        kind = ir.FunctionType(ir.VoidType(), [_I64] * 3)
        function = builder.inttoptr(values[0], kind.as_pointer())
        builder.call(function, values[1:])
        return context.get_dummy_value()

    return types.void(address, args, first, last), codegen


@intrinsic
def call_plain(typingctx, address, argument):
    """Call ``void f(int64)`` at ``address``."""

    def codegen(context, builder, sig, values):
        kind = ir.FunctionType(ir.VoidType(), [_I64])
        builder.call(builder.inttoptr(values[0], kind.as_pointer()), [values[1]])
        return context.get_dummy_value()

    return types.void(address, argument), codegen


@intrinsic
def call_clock(typingctx, address, which, buffer):
    """Call ``int f(int, void *)`` at ``address``: clock_gettime."""

    def codegen(context, builder, sig, values):
        kind = ir.FunctionType(ir.IntType(32), [ir.IntType(32), _I64])
        which = builder.trunc(values[1], ir.IntType(32))
        builder.call(builder.inttoptr(values[0], kind.as_pointer()), [which, values[2]])
        return context.get_dummy_value()

    return types.void(address, which, buffer), codegen


@intrinsic
def pause(typingctx):
    """Tell the core that this is a spin loop."""

    def codegen(context, builder, sig, args):
        machine = _machine()
        if machine == "x86_64":
            _declared(builder, "llvm.x86.sse2.pause", [])
        elif machine == "aarch64":
            _declared(builder, "llvm.aarch64.hint", [ir.Constant(ir.IntType(32), 1)])  # yield
        return context.get_dummy_value()

    return types.void(), codegen


def _declared(builder, name, args):
    kind = ir.FunctionType(ir.VoidType(), [a.type for a in args])
    function = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
    builder.call(function, args)


def _machine() -> str:
    name = platform.machine().lower()
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(name, name)
