"""Which instruction sets there are, which of them this machine has, which one is compiled for.

Imported before numba, whose processor name and features it sets. It knows no set by name.
"""

import os
import pkgutil
import sys
from functools import cache
from importlib import import_module
from types import ModuleType

import llvmlite.binding as llvm

from ggq.errors import UsageError
from ggq.simd import sets
from ggq.simd.declared import MACHINE

__all__ = ["CHOSEN", "IDENTITY", "ISA", "available", "known"]


@cache
def known() -> dict[str, ModuleType]:
    """Return the modules of all instruction sets by name, best first."""
    names = [found.name for found in pkgutil.iter_modules(sets.__path__)]
    modules = {name: import_module(f"{sets.__name__}.{name}") for name in names}
    return dict(sorted(modules.items(), key=lambda item: -item[1].SET.rank))


@cache
def available() -> tuple[str, ...]:
    """Return the instruction sets that this machine can execute, best first."""
    features = frozenset(name for name, on in llvm.get_host_cpu_features().items() if on)
    return tuple(name for name, m in known().items() if m.SET.runs_on(MACHINE, features))


def _choose() -> str:
    forced = os.environ.get("GGQ_ISA", "").strip().lower()
    if not forced:
        return available()[0]
    if forced not in known():
        raise UsageError(f"GGQ_ISA={forced}: unknown; one of {', '.join(known())}")
    if forced not in available() and not os.environ.get("GGQ_CROSS"):
        raise UsageError(f"GGQ_ISA={forced}: this machine has {', '.join(available())}")
    return forced


def _configure() -> str:
    """Pin LLVM's processor and features if an instruction set is forced; return their identity."""
    if not os.environ.get("GGQ_ISA"):
        on = sorted(name for name, present in llvm.get_host_cpu_features().items() if present)
        return f"{llvm.get_host_cpu_name()}:{','.join(on)}"
    chosen = CHOSEN.SET
    os.environ["NUMBA_CPU_NAME"] = chosen.cpu
    os.environ["NUMBA_CPU_FEATURES"] = chosen.features
    if "numba" in sys.modules:
        import numba

        numba.config.reload_config()
    return f"{chosen.cpu}:{chosen.features}"


ISA = _choose()
CHOSEN = known()[ISA]
IDENTITY = _configure()  # of the processor that code is compiled for
