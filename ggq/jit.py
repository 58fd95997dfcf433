"""How functions are compiled: numba's options, and the folder where machine code is kept.

Import numba through this module only (``from ggq.jit import njit, kernel``): the processor has to
be set before numba is first imported (simd/target.py). It knows no kernel.
"""

import hashlib
import os
import shutil
import stat
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from ggq.simd.target import CHOSEN, IDENTITY, ISA  # before numba: see there

# isort: split
import numba

from ggq import machine_code, sources
from ggq.paths import user_cache_dir
from ggq.simd.structs import Struct

__all__ = [
    "CACHE_DIR",
    "EMITTERS",
    "ISA",
    "entry",
    "kernel",
    "njit",
    "njit_cached",
]

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


def _configure_cache() -> Path:
    """Return the folder for code that this processor and this numba make; tidy it once a day."""
    from importlib.metadata import version

    identity = (IDENTITY, ISA, version("numba"), version("llvmlite"))
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


CACHE_DIR = _configure_cache()

# No fastmath anywhere: kernels ask for fused multiply-add by name, encoders must not contract.
# A helper lives in its callers: wrappers for calls from Python would only double its code.
njit = numba.njit(
    nogil=True,
    error_model="numpy",
    forceinline=True,
    no_cpython_wrapper=True,
    no_cfunc_wrapper=True,
)

# The modules that decide how any function is compiled, whatever it imports itself.
EMITTERS = frozenset({"ggq.jit", "ggq.lean", "ggq.simd.isa", CHOSEN.__name__})


def njit_cached(function):
    """Compile an entry point for Python; its machine code stays on disk.

    numba's cache looks at the function's own file alone. So that an edit of what it imports
    recompiles it, the cache is a folder named by the hash of all these sources.
    """
    folder = CACHE_DIR / sources.digest(machine_code.modules_of(function) | EMITTERS)[:24]
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
        signature = numba.types.void(block, numba.types.intp, numba.types.intp)
        return _c_function(signature, function, block)

    return decorate


def entry(returns=False):
    """Make a function of int64 arguments one that Python calls through ctypes, without the GIL.

    The attribute ``njit`` is the same function for other compiled functions to call.
    """

    def decorate(function):
        count = function.__code__.co_argcount
        result = numba.types.int64 if returns else numba.types.void
        made = _c_function(result(*[numba.types.int64] * count), function)
        return machine_code.Entry(made, machine_code.prototype(count, returns), njit(function))

    return decorate


def _c_function(signature, function, arguments=None):
    def compile_module(function):
        try:
            from ggq.lean import compile_module

            return compile_module(signature, function)
        except (AttributeError, ImportError, TypeError):  # a numba whose internals differ
            return numba.cfunc(signature, nopython=True, error_model="numpy")(function)

    return machine_code.Function(function, compile_module, CACHE_DIR, EMITTERS, arguments)
