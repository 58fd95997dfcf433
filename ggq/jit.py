"""The one place where numba is configured: instruction set, cache folder, compile options.

Import numba through this module only (``from ggq.jit import njit, kernel``): the processor name,
the feature list and the cache folder have to be set before numba is first imported. It knows no
kernel.
"""

import hashlib
import os
import shutil
import stat
import sys
import tempfile
import time
from contextlib import suppress
from functools import cache
from pathlib import Path

from ggq import machine_code, sources
from ggq.errors import UsageError
from ggq.paths import user_cache_dir

# What GGQ_ISA accepts -> (LLVM processor name, features). None: the host as LLVM detects it.
# The names are baselines that hold the set and nothing above it; features are LLVM's own.
_FORCED = {
    "avx512": ("icelake-server", "+avx512vnni,+avx512bw,+avx512vl,+avx512vbmi,+f16c,+fma"),
    "avx2vnni": ("alderlake", "+avx2,+avxvnni,+f16c,+fma"),
    "avx2": ("haswell", "+avx2,+f16c,+fma"),
    "neon": ("neoverse-n1", "+neon,+dotprod,+fullfp16"),
    "generic": ("x86-64", ""),
}


_KEPT_SECONDS = 30 * 24 * 3600  # how long an unused cache folder stays


def _host_features() -> dict[str, bool]:
    import llvmlite.binding as llvm

    return dict(llvm.get_host_cpu_features())


def _machine() -> str:
    import platform

    machine = platform.machine().lower()
    return "arm" if machine in ("arm64", "aarch64") else "x86"


@cache
def host_isas() -> tuple[str, ...]:
    """Return the instruction sets that this machine can execute, best first."""
    f = _host_features()
    if _machine() == "arm":
        # LLVM does not list features on macOS; every Apple processor here has the dot product.
        has_dot = f.get("dotprod") or sys.platform == "darwin"
        return ("neon", "generic") if has_dot else ("generic",)
    found = []
    avx512 = all(f.get(k) for k in ("avx512vnni", "avx512bw", "avx512vl"))
    if avx512:
        found.append("avx512")
    if all(f.get(k) for k in ("avx2", "fma", "f16c")):
        found += ["avx2vnni", "avx2"] if f.get("avxvnni") else ["avx2"]
    return (*found, "generic")


def _choose_isa() -> str:
    forced = os.environ.get("GGQ_ISA", "").strip().lower()
    if not forced:
        return host_isas()[0]
    if forced not in _FORCED:
        raise UsageError(f"GGQ_ISA={forced}: unknown; one of {', '.join(_FORCED)}")
    if forced not in host_isas() and not os.environ.get("GGQ_CROSS"):
        raise UsageError(f"GGQ_ISA={forced}: this machine has {', '.join(host_isas())}")
    return forced


ISA = _choose_isa()


def _configure_target() -> str:
    """Pin LLVM's processor and features if an instruction set is forced; return their identity."""
    import llvmlite.binding as llvm

    if os.environ.get("GGQ_ISA"):
        cpu, features = _FORCED[ISA]
        if ISA == "generic" and _machine() == "arm":
            cpu, features = "generic", "+neon"
        os.environ["NUMBA_CPU_NAME"], os.environ["NUMBA_CPU_FEATURES"] = cpu, features
        return f"{cpu}:{features}"
    on = sorted(name for name, present in _host_features().items() if present)
    return f"{llvm.get_host_cpu_name()}:{','.join(on)}"


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


def _configure_cache(target: str) -> Path:
    """Return the folder for code that this processor and this numba make; tidy it once a day."""
    from importlib.metadata import version

    identity = (target, ISA, version("numba"), version("llvmlite"))
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


if "numba" in sys.modules:
    import numba as _numba

    CACHE_DIR = _configure_cache(_configure_target())
    _numba.config.reload_config()
else:
    CACHE_DIR = _configure_cache(_configure_target())

import numba  # noqa: E402

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
_SETS = {f"ggq.simd.{name}" for name in ("avx2", "avx512", "neon", "generic")}
EMITTERS = frozenset({"ggq.jit", "ggq.lean", "ggq.simd.isa", *_SETS})


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


# Every plan kernel: (address of its argument block, first item, one past the last item).
KERNEL_SIGNATURE = numba.types.void(numba.types.intp, numba.types.intp, numba.types.intp)


def kernel(function):
    """Make ``function(args, first, last)`` a C function whose address a plan row can hold."""
    return _c_function(KERNEL_SIGNATURE, function)


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


def _c_function(signature, function):
    def compile_module(function):
        try:
            from ggq.lean import compile_module

            return compile_module(signature, function)
        except (AttributeError, ImportError, TypeError):  # a numba whose internals differ
            return numba.cfunc(signature, nopython=True, error_model="numpy")(function)

    return machine_code.Function(function, compile_module, CACHE_DIR, EMITTERS)
