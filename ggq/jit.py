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

from ggq import machine_code
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


def _source_hash() -> str:
    """Hash every source that kernels are made of: numba's key sees only the kernel's own file."""
    root = Path(__file__).resolve().parent
    sources = [root / "jit.py", *root.glob("simd/*.py"), *root.glob("quants/**/*.py")]
    sources += [*root.glob("runtime/ops/*/numba.py"), *root.glob("runtime/kernels/*.py")]
    h = hashlib.sha256()
    for path in sorted(sources):
        h.update(path.name.encode() + b"\0" + path.read_bytes())
    return h.hexdigest()


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


def _forget_unused(parent: Path) -> None:
    """Delete the folders of other versions and processors that no start has touched for a month."""
    with suppress(OSError):
        for folder in parent.iterdir():
            if time.time() - folder.stat().st_mtime > _KEPT_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)


def _configure_cache(target: str) -> Path:
    from importlib.metadata import version

    identity = (target, ISA, version("numba"), version("llvmlite"), _source_hash())
    key = hashlib.sha256("|".join(identity).encode()).hexdigest()[:24]
    parent = user_cache_dir() / "jit"
    if not (parent / key).exists():
        _forget_unused(parent)
    folder = _private_folder(parent / key)
    os.environ["NUMBA_CACHE_DIR"] = str(folder)
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
njit_cached = numba.njit(nogil=True, error_model="numpy", cache=True)  # entry point

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
    def compile_cfunc(function, cache=False):
        options = {"cache": cache, "nopython": True, "error_model": "numpy"}
        return numba.cfunc(signature, **options)(function)

    return machine_code.Function(function, compile_cfunc, CACHE_DIR)
