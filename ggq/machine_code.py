"""C functions made from Python ones by numba, kept on disk as machine code.

Loading one takes LLVM's loader and half a millisecond; numba's own cache first needs numba's typing
tables (0.1 s) and unpickles. What a function computes and who calls it are not known here.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import cache, cached_property
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any, NamedTuple

__all__ = ["Entry", "Function", "make_ready", "prototype", "set_listener"]

_listener: Callable[[int, int], None] | None = None
_done = _total = 0  # compiled by this process, and known to be needed


def set_listener(listener: Callable[[int, int], None] | None) -> None:
    """Have ``listener(done, total)`` told how compiling goes, where anything has to be compiled."""
    global _listener
    _listener = listener


def make_ready(functions: Iterable[Function]) -> None:
    """Load functions, and compile what the disk does not hold, telling the listener."""
    global _done, _total
    waiting = [f for f in dict.fromkeys(functions) if not f.is_ready()]
    _total += len(waiting)
    for function in waiting:
        _tell()
        function.compile()
        _done += 1
    if waiting:
        _tell()


def _tell() -> None:
    if _listener:
        _listener(_done, _total)


class Function:
    """A C function of int64 arguments; loaded or compiled when its address is first asked for.

    ``compile_cfunc`` is numba's; ``folder`` belongs to one processor and one state of the sources.
    """

    def __init__(self, function: FunctionType, compile_cfunc: Callable, folder: Path) -> None:
        self._function, self._compile_cfunc = function, compile_cfunc
        self._path = folder / f"{_identity(function)}.o"
        self._address: int | None = None
        self._engine: Any = None

    def is_ready(self) -> bool:
        """Whether it can be called without compiling; loads it if the disk holds it."""
        if self._address is None and (found := _read(self._path)):
            if found.data:
                self._engine, self._address = _loaded(found)
            else:
                self._address = self._kept_by_numba.address
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

    @cached_property
    def cfunc(self) -> Any:
        """Numba's form of it, for those who look at its assembly; always compiles."""
        return self._compile_cfunc(self._function)

    @cached_property
    def _kept_by_numba(self) -> Any:
        return self._compile_cfunc(self._function, cache=True)

    def compile(self) -> None:
        """Compile the function and keep it on disk if that can be done."""
        self._address = self.cfunc.address
        # Another numba may hold its code elsewhere: then every process compiles, and all works.
        with suppress(OSError, AttributeError):
            code = _Code.of(self.cfunc)
            _write(self._path, code)
            if not code.data:
                self._address = self._kept_by_numba.address


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


def _loaded(code: _Code) -> tuple[Any, int]:
    """Return LLVM's engine that holds the code, to be kept, and the function's address.

    Each function has an engine of its own: names inside may repeat between processes.
    """
    import llvmlite.binding as llvm

    for name in code.outside:
        llvm.add_symbol(name, _outside_address(name))
    machine = llvm.Target.from_default_triple().create_target_machine(jit=True)
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
    engine.add_object_file(llvm.ObjectFileRef.from_data(code.data))
    engine.finalize_object()
    return engine, engine.get_function_address(code.name)


def _outside_address(name: str) -> int:
    """Return the address of a function of CPython or numba (error paths), 0 if there is none."""
    if name.startswith("numba_"):
        from numba import _helperlib

        return _helperlib.c_helpers.get(name.removeprefix("numba_"), 0)
    function = getattr(ctypes.pythonapi, name, None)
    return ctypes.cast(function, ctypes.c_void_p).value or 0 if function else 0


class _Code(NamedTuple):
    """Machine code: the function's name in it, names it takes from elsewhere, an object file."""

    name: str
    outside: list[str]
    data: bytes

    @classmethod
    def of(cls, cfunc: Any) -> _Code:
        """Take the code out of numba's hands; no data where it needs more of numba to run."""
        library = cfunc._library
        text = str(library._final_module)
        names = re.findall(r"^declare .*?@([\w.]+)\(", text, re.M)
        names += re.findall(r"^@([\w.]+) = external ", text, re.M)
        outside = [name for name in names if not name.startswith("llvm.")]
        if not all(map(_outside_address, outside)):
            return cls(cfunc.native_name, [], b"")
        return cls(cfunc.native_name, outside, library.serialize_using_object_code()[2][0])

    @property
    def loadable(self) -> bool:
        """Whether all names are known: LLVM ends the process over one that is not."""
        return all(map(_outside_address, self.outside))


def _write(path: Path, code: _Code) -> None:
    head = json.dumps([code.name, code.outside]).encode() + b"\n"
    body = head + code.data
    partial = path.with_suffix(f".{os.getpid()}")
    try:
        partial.write_bytes(hashlib.sha256(body).digest() + body)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _read(path: Path) -> _Code | None:
    """Return what ``_write`` wrote; None where it is missing, damaged or not for this Python."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    digest, body = data[:32], data[32:]
    if digest != hashlib.sha256(body).digest():
        return None
    head, _, data = body.partition(b"\n")
    code = _Code(*json.loads(head), data)
    return code if code.loadable else None


def _identity(function: FunctionType) -> str:
    """Return a name for what a function does, as far as its own code and closure tell.

    What it calls by global names is part of the folder's key.
    """
    digest = hashlib.sha256()
    for part in _parts(function):
        digest.update(part.encode("utf-8", "backslashreplace") + b"\0")
    return digest.hexdigest()[:40]


def _parts(value: Any) -> Iterable[str]:
    value = getattr(value, "py_func", value)  # a numba dispatcher
    if isinstance(value, FunctionType):
        yield f"{value.__module__}.{value.__qualname__}"
        yield from _parts(value.__code__)
        for default in (value.__defaults__ or (), value.__closure__ or ()):
            for item in default:
                yield from _parts(getattr(item, "cell_contents", item))
    elif isinstance(value, CodeType):
        yield value.co_code.hex()
        yield repr(value.co_names)
        for constant in value.co_consts:
            yield from _parts(constant)
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _parts(item)
    else:
        yield re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value))
