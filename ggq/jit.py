"""How functions are compiled: numba's options, and the folder where machine code is kept.

Functions that are decorated here are compiled when something calls for their code; numba is not
imported before (simd/deferred.py). It knows no kernel.
"""

import hashlib
import os
import shutil
import stat
import tempfile
import time
from contextlib import suppress
from functools import cache
from pathlib import Path

from ggq import machine_code, sources
from ggq.paths import user_cache_dir
from ggq.simd.deferred import Deferred, register
from ggq.simd.structs import Struct
from ggq.simd.target import CHOSEN, ISA

__all__ = ["EMITTERS", "ISA", "cache_dir", "entry", "kernel", "njit", "njit_cached"]

_KEPT_SECONDS = 30 * 24 * 3600  # how long what nobody uses stays


def _private_folder(path: Path) -> Path:
    """Create ``path`` for this user alone: cache files are pickles, nobody else may write there."""
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        if os.name == "posix":
            info = path.stat()
            if info.st_uid != os.getuid() or info.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                raise PermissionError(path)
        probe = path / f".probe-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError:
        # private and new: slower start, still safe
        return Path(tempfile.mkdtemp(prefix="ggq-jit-"))
    return path


def _forget_unused(folder: Path) -> None:
    """Delete what no start has used for a month: other versions, processors, sources."""
    with suppress(OSError):
        for entry in folder.iterdir():
            if time.time() - entry.stat().st_mtime > _KEPT_SECONDS:
                if entry.is_dir():
                    shutil.rmtree(entry, ignore_errors=True)
                else:
                    entry.unlink(missing_ok=True)


@cache
def cache_dir() -> Path:
    """Return the folder for code that this set and this numba make; tidy it once a day."""
    from importlib.metadata import version

    identity = (ISA, CHOSEN.SET.cpu, CHOSEN.SET.features, version("numba"), version("llvmlite"))
    key = hashlib.sha256("|".join(identity).encode()).hexdigest()[:24]
    parent = user_cache_dir() / "jit"
    folder = _private_folder(parent / key)
    tidied = folder / ".tidied"
    if not tidied.exists() or time.time() - tidied.stat().st_mtime > 24 * 3600:
        _forget_unused(parent)
        _forget_unused(folder)
        with suppress(OSError):
            tidied.touch()
    return folder


# The modules that decide how any function is compiled, whatever it imports itself.
EMITTERS = frozenset({"ggq.jit", "ggq.lean", "ggq.simd.intrinsics", "ggq.simd.isa"})
EMITTERS |= {CHOSEN.__name__}


def njit(function):
    """Compile a helper of kernels. It lives in its callers: no wrapper for calls from Python.

    No fastmath anywhere: kernels ask for fused multiply-add by name, encoders must not contract.
    """

    def made():
        import numba

        options = {"nogil": True, "error_model": "numpy", "forceinline": True}
        return numba.njit(**options, no_cpython_wrapper=True, no_cfunc_wrapper=True)(function)

    return Deferred(function.__qualname__, made, function)


def njit_cached(function):
    """Compile an entry point for Python; its machine code stays on disk.

    numba's cache looks at the function's own file alone. So that an edit of what it imports
    recompiles it, the cache is a folder named by the hash of all these sources.
    """
    import numba

    register()
    folder = cache_dir() / sources.digest(machine_code.modules_of(function) | EMITTERS)[:24]
    with suppress(OSError):
        if folder.exists():
            os.utime(folder)
    before, numba.config.CACHE_DIR = numba.config.CACHE_DIR, str(folder)
    try:
        return numba.njit(nogil=True, error_model="numpy", cache=True)(function)
    finally:
        numba.config.CACHE_DIR = before


def kernel(arguments=None, **fields):
    """Make ``function(args, first, last)`` a C function whose address a plan row can hold.

    ``args`` is the block of its arguments, a Struct, or the fields of one; first and one past the
    last item follow. The declaration stays at the kernel: ``arguments``.
    """

    def decorate(function):
        block = arguments or Struct(function.__name__, **fields)
        return _c_function(function, (block, "int64", "int64"), "void", block)

    return decorate


def entry(returns=False):
    """Make a function of int64 arguments one that Python calls through ctypes, without the GIL.

    The attribute ``njit`` is the same function for other compiled functions to call.
    """

    def decorate(function):
        count = function.__code__.co_argcount
        made = _c_function(function, ("int64",) * count, "int64" if returns else "void")
        return machine_code.Entry(made, machine_code.prototype(count, returns), njit(function))

    return decorate


def _c_function(function, takes, returns, arguments=None):
    def compile_module(function):
        import numba

        register()
        kinds = [k.kind if isinstance(k, Struct) else getattr(numba.types, k) for k in takes]
        signature = getattr(numba.types, returns)(*kinds)
        try:
            from ggq.lean import compile_module

            return compile_module(signature, function)
        except (AttributeError, ImportError, TypeError):  # a numba whose internals differ
            return numba.cfunc(signature, nopython=True, error_model="numpy")(function)

    return machine_code.Function(function, compile_module, cache_dir, EMITTERS, arguments)
