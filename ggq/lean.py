"""Compiles a Python function to an object file: numba's typing and lowering, LLVM's passes once.

numba optimises and emits every helper as a library of its own, then again in each caller. Here all
helpers are linked as they were lowered, everything but the outermost function becomes internal,
and one run of the passes inlines and optimises the whole: a third of the time for the same
results. It relies on numba's internals: its caller has another way where they differ.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import FunctionType
from typing import Any

from llvmlite import ir
from numba.core import ccallback, codegen, compiler, registry
from numba.core.compiler_lock import global_compiler_lock

from ggq.machine_code import FUNCTION_NAME

__all__ = ["Module", "compile_module"]


class _Library(codegen.JITCodeLibrary):
    """One lowered function; what it calls is linked when the outermost is complete."""

    def add_llvm_module(self, ll_module: Any) -> None:
        self._final_module.link_in(ll_module)

    def finalize(self) -> None:
        self._finalized = True

    def get_pointer_to_function(self, name: str) -> int:
        """Nothing is emitted, so that nothing has an address."""
        self._ensure_finalized()
        return 0

    def _get_module_for_linking(self) -> Any:
        """Return the function with all that it calls, for a library that numba itself finalizes."""
        module = self._final_module.clone()
        self.link_callees(module)
        for function in module.functions:
            if not function.is_declaration:
                function.linkage = "linkonce_odr"
        return module

    def link_callees(self, module: Any) -> None:
        """Link every function that is called, directly or not, into ``module``."""
        seen = {self}
        waiting = list(self._linking_libraries)
        while waiting:
            library = waiting.pop()
            if library in seen:
                continue
            seen.add(library)
            if isinstance(library, _Library):
                callee = library._final_module
                waiting += library._linking_libraries
            else:  # compiled before by numba itself
                callee = library._get_module_for_linking()
            module.link_in(callee, preserve=True)


class _Compiler(ccallback._CFuncCompiler):  # type: ignore[name-defined,misc]
    def _customize_flags(self, flags: Any) -> Any:
        flags = super()._customize_flags(flags)
        flags.no_cfunc_wrapper = True
        return flags


@contextmanager
def _linking_late() -> Iterator[None]:
    """Have numba lower functions into libraries that are neither optimised nor emitted."""
    generator = registry.cpu_target.target_context.codegen()
    generator._library_class, generator.set_env = _Library, lambda name, environment: None
    try:
        yield
    finally:
        del generator._library_class, generator.set_env


class Module:
    """LLVM's module of one C function, ``FUNCTION_NAME``; all else in it is internal."""

    def __init__(self, library: _Library) -> None:
        self._machine = library.codegen._tm
        self._module = library._final_module
        self._function = self._module.get_function(FUNCTION_NAME)

    def outside(self) -> list[str]:
        """Return the names that the code takes from elsewhere."""
        values = [*self._module.functions, *self._module.global_variables]
        names = [v.name for v in values if v.is_declaration]
        return [name for name in names if not name.startswith("llvm.")]

    def object(self, machine: Any = None, name: str = FUNCTION_NAME) -> bytes:
        """Return the object file, for the host or another LLVM target machine."""
        self._function.name = name
        return (machine or self._machine).emit_object(self._module)

    def assembly(self, machine: Any = None) -> str:
        """Return the same as text."""
        return (machine or self._machine).emit_assembly(self._module)


@global_compiler_lock
def compile_module(signature: Any, function: FunctionType) -> Module:
    """Compile ``function`` to a C function of the signature; an exception in it goes unseen."""
    options = {"nopython": True, "error_model": "numpy"}
    front = _Compiler(function, registry.cpu_target, options, {}, compiler.Compiler)
    with _linking_late():
        compiled = front.compile(signature.args, signature.return_type)
        library = compiled.library
        library.add_ir_module(_c_function(compiled.fndesc))
    module = library._final_module
    library.link_callees(module)
    for value in (*module.functions, *module.global_variables):
        if not value.is_declaration and value.name != FUNCTION_NAME:
            value.linkage = "internal"
    _optimise(library)
    module.verify()
    return Module(library)


def _c_function(descriptor: Any) -> ir.Module:
    """Return a function of the plain C convention that calls numba's and ignores its status."""
    context = registry.cpu_target.target_context
    module = context.create_module("c_function")
    kind = context.call_conv.get_function_type(descriptor.restype, descriptor.argtypes)
    callee = ir.Function(module, kind, descriptor.llvm_func_name)
    arguments = [context.get_value_type(t) for t in descriptor.argtypes]
    wrapper = ir.FunctionType(context.get_value_type(descriptor.restype), arguments)
    function = ir.Function(module, wrapper, FUNCTION_NAME)
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    _, result = context.call_conv.call_function(
        builder, callee, descriptor.restype, descriptor.argtypes, function.args
    )
    builder.ret(result)
    return module


def _optimise(library: _Library) -> None:
    """Run LLVM's passes; nothing is left to vectorize in code made of vectors."""
    generator = library.codegen
    builder = generator._pass_builder(opt=3, loop_vectorize=False, slp_vectorize=False)
    module = library._final_module
    module.data_layout = generator._data_layout
    builder.getModulePassManager().run(module, builder)
