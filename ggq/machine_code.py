"""C functions made from Python ones, kept on disk as machine code.

Loading one takes LLVM's loader and half a millisecond; numba's own cache first needs numba's typing
tables (0.1 s) and unpickles. What a function computes, who calls it and how it is compiled
(lean.py) are not known here.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Set
from contextlib import suppress
from functools import cache, cached_property
from pathlib import Path
from types import FunctionType
from typing import Any, ClassVar

from ggq import shipped, sources

__all__ = [
    "FUNCTION_NAME",
    "Entry",
    "Function",
    "make_ready",
    "modules_of",
    "prototype",
    "set_default_listener",
    "set_listener",
]

FUNCTION_NAME = "ggq"  # of the C function in each object file
_USE_NOTED_SECONDS = 24 * 3600  # a file's time says when it was last used, to the day

_listener: Callable[[int, int], None] | None = None
_engines: list[Any] = []  # they own the code, whose addresses may be anywhere: never freed
_counting = threading.Lock()
_done = _total = 0  # compiled by this process, and known to be needed


def set_listener(listener: Callable[[int, int], None] | None) -> None:
    """Have ``listener(done, total)`` told how compiling goes, where anything has to be compiled."""
    global _listener
    _listener = listener


def set_default_listener(listener: Callable[[int, int], None]) -> None:
    """Have ``listener`` told where nobody else is: for who opens a model from Python."""
    global _listener
    _listener = _listener or listener


def make_ready(functions: Iterable[Function]) -> None:
    """Load functions, and compile what the disk does not hold, telling the listener."""
    global _total
    missing = [f for f in dict.fromkeys(functions) if not f.is_ready()]
    if not missing:
        return
    from ggq.compile_workers import helpers

    with _counting:
        _total += len(missing)
        _tell()
    shared = deque(f for f in missing if f.home)
    with helpers(shared, _take):
        _compile_all(deque(f for f in missing if not f.home))
        _compile_all(shared)
    _compile_all(shared)  # what a helper gave back


def _compile_all(waiting: deque[Function]) -> None:
    while waiting:
        with suppress(IndexError):  # a helper took it
            function = waiting.popleft()
            _take(function, function.compiled())


def _take(function: Function, code: bytes) -> None:
    """Make a function that was compiled ready."""
    global _done
    function.take(code)
    with _counting:
        _done += 1
        _tell()


def _tell() -> None:
    if _listener:
        _listener(_done, _total)


class Function:
    """A C function of int64 arguments; loaded or compiled when its address is first asked for.

    ``compile_module(function)`` returns lean.Module, or what has an ``address`` and cannot be kept;
    ``folder()`` belongs to one instruction set; ``emitters`` are the modules that decide how any
    function is compiled; ``arguments`` is the declaration of a kernel's block of arguments.
    """

    made: ClassVar[list[Function]] = []  # all that were made by an import, of the module ``home``

    def __init__(
        self,
        function: FunctionType,
        compile_module: Callable,
        folder: Callable[[], Path],
        emitters: Set[str],
        arguments: Any = None,
    ) -> None:
        self.arguments = arguments
        self.home = _importing()
        if self.home:
            self.made.append(self)
        self._function, self._compile_module = function, compile_module
        self._folder, self._emitters = folder, emitters
        self._address: int | None = None

    @cached_property
    def modules(self) -> frozenset[str]:
        """The modules whose sources, with those of all that they import, decide the code."""
        return modules_of(self._function) | self._emitters

    @cached_property
    def key(self) -> str:
        """A hash of what the function is and of those sources."""
        name = "\0".join([*_parts(self._function), sources.digest(self.modules)])
        return hashlib.sha256(name.encode("utf-8", "backslashreplace")).hexdigest()[:40]

    @property
    def name(self) -> str:
        """What people call it: the function, then what its closure holds."""
        parts = [re.sub(r":\d+$", "", part) for part in _parts(self._function)]
        return " ".join(part.removeprefix("ggq.").replace(".<locals>", "") for part in parts)

    @cached_property
    def path(self) -> Path:
        """Where the disk holds what was compiled here."""
        return self._folder() / f"{self.key}.o"

    @cached_property
    def module(self) -> Any:
        """LLVM's module, for those who look at its code; always compiles."""
        return self._compile_module(self._function)

    def is_ready(self) -> bool:
        """Whether it can be called without compiling; loads it if it was shipped or compiled."""
        if self._address is None:
            from ggq.simd.target import ISA  # looks at the processor: not before it matters

            self._address = shipped.address(ISA, self.key)
        if self._address is None and (code := _read(self.path)):
            self._load(code)
        return self._address is not None

    @property
    def address(self) -> int:
        """Where the machine code begins."""
        if not self.is_ready():
            make_ready([self])
        assert self._address
        return self._address

    @cached_property
    def ctypes(self) -> Any:
        """The kernel as a Python function of three integers, for tests."""
        return prototype(3, False)(self.address)

    def compiled(self, machine: Any = None, name: str = FUNCTION_NAME) -> bytes:
        """Return the object file; none where numba's internals differ and it stays in memory.

        ``machine``, ``name``: another LLVM target machine, another name of the function in it.
        """
        if address := getattr(self.module, "address", None):
            self._address = address
            return b""
        outside = [name for name in self.module.outside() if name not in shipped.MATHS]
        assert not outside, f"{self._function.__qualname__} calls {', '.join(outside)}"
        code: bytes = self.module.object(machine, name)
        return code

    def take(self, code: bytes) -> None:
        """Load what ``compiled`` returned, in whatever process; keep it on disk if possible."""
        if code:
            with suppress(OSError):
                _write(self.path, code)
            self._load(code)

    def _load(self, code: bytes) -> None:
        """Each function has an engine of LLVM's of its own: all have the same name."""
        import llvmlite.binding as llvm

        _prepare_loader()
        machine = llvm.Target.from_default_triple().create_target_machine(jit=True)
        engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
        engine.add_object_file(llvm.ObjectFileRef.from_data(code))
        engine.finalize_object()
        self._address = engine.get_function_address(FUNCTION_NAME)
        _engines.append(engine)


class Entry:
    """A ``Function`` that Python calls; ``njit`` is the same for compiled functions to call."""

    def __init__(self, function: Function, prototype: Any, njit: Any) -> None:
        self.function, self.njit = function, njit
        self._prototype = prototype

    @cached_property
    def _call(self) -> Any:
        return self._prototype(self.function.address)

    def __call__(self, *arguments: int) -> int | None:
        return self._call(*arguments)


@cache
def prototype(n_arguments: int, returns: bool) -> Any:
    """Return the ctypes type of a function of int64 arguments; calls release the GIL."""
    return ctypes.CFUNCTYPE(ctypes.c_int64 if returns else None, *[ctypes.c_int64] * n_arguments)


def _importing() -> str:
    """Return the module of this package that is being imported, "" at any other time."""
    frame = sys._getframe()
    while frame.f_back and frame.f_code.co_name != "<module>":
        frame = frame.f_back
    name = frame.f_globals["__name__"]
    return name if name.startswith("ggq.") and frame.f_code.co_name == "<module>" else ""


@cache
def _prepare_loader() -> None:
    """Tell LLVM's loader where C's functions are: it ends the process over an unknown name."""
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    for name in shipped.MATHS:
        llvm.add_symbol(name, shipped.c_address(name))


def _write(path: Path, code: bytes) -> None:
    partial = path.with_suffix(f".{os.getpid()}")
    try:
        partial.write_bytes(hashlib.sha256(code).digest() + code)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _read(path: Path) -> bytes | None:
    """Return what ``_write`` wrote, None where it is missing or damaged; note the use."""
    try:
        data = path.read_bytes()
        if time.time() - path.stat().st_mtime > _USE_NOTED_SECONDS:
            os.utime(path)
    except OSError:
        return None
    digest, code = data[:32], data[32:]
    return code if digest == hashlib.sha256(code).digest() else None


def modules_of(function: FunctionType) -> frozenset[str]:
    """Return the modules of a function and of the functions in its closure."""
    return frozenset(f.__module__ for f in _functions(function))


def _functions(value: Any) -> Iterable[FunctionType]:
    value = getattr(value, "py_func", None) or value  # a dispatcher
    value = getattr(value, "_defn", value)  # a numba intrinsic
    if isinstance(value, FunctionType):
        yield value
        for item in (*(value.__defaults__ or ()), *(value.__closure__ or ())):
            yield from _functions(getattr(item, "cell_contents", item))
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _functions(item)


def _parts(value: Any) -> Iterable[str]:
    """Name a function, and the values in its closure, equally on every machine and Python.

    The line tells functions of one name apart; as all sources are in the key, it holds no more.

    What it calls by global names is in the sources' hash.
    """
    value = getattr(value, "py_func", None) or value  # a dispatcher
    if isinstance(value, FunctionType):
        yield f"{value.__module__}.{value.__qualname__}:{value.__code__.co_firstlineno}"
        for item in (*(value.__defaults__ or ()), *(value.__closure__ or ())):
            yield from _parts(getattr(item, "cell_contents", item))
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _parts(item)
    else:
        yield re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value))
