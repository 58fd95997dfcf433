"""Which instruction sets there are, which of them this machine has, which one is compiled for.

Imported before numba, whose processor name and features it sets to the chosen set's baseline: the
same code then holds for every processor that has the set. It knows no set by name.
"""

import os
import pkgutil
import sys
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType

from ggq.errors import UsageError
from ggq.simd import sets
from ggq.simd.declared import MACHINE

__all__ = ["CHOSEN", "ISA", "available", "known"]

# Linux's names of features that LLVM calls by others; all else is the same without underscores.
_LLVM_NAMES = {"asimd": "neon", "asimddp": "dotprod", "asimdhp": "fullfp16"}
_LLVM_NAMES |= {f"amx_{kind}": f"amx-{kind}" for kind in ("tile", "int8", "bf16")}


@cache
def known() -> dict[str, ModuleType]:
    """Return the modules of all instruction sets by name, best first."""
    names = [found.name for found in pkgutil.iter_modules(sets.__path__)]
    modules = {name: import_module(f"{sets.__name__}.{name}") for name in names}
    return dict(sorted(modules.items(), key=lambda item: -item[1].SET.rank))


@cache
def available() -> tuple[str, ...]:
    """Return the instruction sets that this machine can execute, best first."""
    features = _told_by_linux() or _told_by_llvm()
    return tuple(name for name, m in known().items() if m.SET.runs_on(MACHINE, features))


def _told_by_linux() -> frozenset[str]:
    """Return this processor's features by LLVM's names; nothing where the system is another.

    Reading one file spares loading LLVM. The kernel lists only what it lets programs use.
    """
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() in ("flags", "Features"):
                return frozenset(_LLVM_NAMES.get(n, n.replace("_", "")) for n in value.split())
    return frozenset()


def _told_by_llvm() -> frozenset[str]:
    import llvmlite.binding as llvm

    return frozenset(name for name, on in llvm.get_host_cpu_features().items() if on)


def _choose() -> str:
    forced = os.environ.get("GGQ_ISA", "").strip().lower()
    if not forced:
        return available()[0]
    if forced not in known():
        raise UsageError(f"GGQ_ISA={forced}: unknown; one of {', '.join(known())}")
    if forced not in available() and not os.environ.get("GGQ_CROSS"):
        raise UsageError(f"GGQ_ISA={forced}: this machine has {', '.join(available())}")
    return forced


def _configure() -> None:
    """Pin LLVM's processor and features to the chosen set's baseline."""
    os.environ["NUMBA_CPU_NAME"] = CHOSEN.SET.cpu
    os.environ["NUMBA_CPU_FEATURES"] = CHOSEN.SET.features
    if "numba" in sys.modules:
        import numba

        numba.config.reload_config()


ISA = _choose()
CHOSEN = known()[ISA]
_configure()
