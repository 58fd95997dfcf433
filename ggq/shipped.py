"""Kernels that came with ggq: a shared library per instruction set, made by build_kernels.py.

A function is found by its key, a hash of what it is and of the sources that it is made of: code of
other sources has other keys. The library has a checksum, depends on no other library, and is loaded
without numba and LLVM. How code is made, and what happens without any, is not known here.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import sys
from functools import cache
from pathlib import Path
from typing import Any

__all__ = ["MATHS", "address", "c_address", "folder", "problem", "symbol", "system"]

# Functions of C's library that machine code may call: by how many arguments they have.
MATHS = {"exp": 1, "expf": 1, "floor": 1, "floorf": 1, "fma": 3, "fmaf": 3}
MATHS |= {"log1p": 1, "log1pf": 1, "rint": 1, "rintf": 1, "sqrt": 1, "sqrtf": 1}

_problem = ""


def system() -> str:
    """Return what a library is built for, such as "linux x86"."""
    from ggq.simd.declared import MACHINE  # and with it the look at the processor: not at once

    return f"{sys.platform} {MACHINE}"


def folder() -> Path:
    """Return where the libraries are: beside this file, or GGQ_KERNELS ("none" for nowhere)."""
    return Path(os.environ.get("GGQ_KERNELS") or Path(__file__).with_name("kernels"))


def symbol(key: str) -> str:
    """Return the name in the library of the function with this key."""
    return f"ggq_{key}"


def address(isa: str, key: str) -> int | None:
    """Return where the function with this key begins, None where no library holds it."""
    library = _library(isa, folder())
    found = getattr(library, symbol(key), None) if library else None
    return ctypes.cast(found, ctypes.c_void_p).value if found else None


def problem() -> str:
    """Say in one line why a library is not used, "" where none is there or all is well."""
    return _problem


@cache
def _library(isa: str, where: Path) -> ctypes.CDLL | None:
    """Return the checked library of an instruction set."""
    global _problem
    try:
        about = json.loads((where / f"{isa}.json").read_text(encoding="utf-8"))
        path = where / about["library"]
        if about["platform"] != system():
            _problem = f"{path} is for {about['platform']}, this is {system()}"
        elif hashlib.sha256(path.read_bytes()).hexdigest() != about["sha256"]:
            _problem = f"{path} does not match its checksum"
        else:
            return _bound(ctypes.CDLL(str(path)))
    except FileNotFoundError:
        pass
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        _problem = f"{where / isa}: {error}"
    return None


def _bound(library: ctypes.CDLL) -> ctypes.CDLL:
    """Tell a library where C's functions are."""
    table: Any = (ctypes.c_void_p * len(MATHS)).in_dll(library, "ggq_maths")
    table[:] = [c_address(name) for name in MATHS]
    return library


@cache
def c_address(name: str) -> int:
    """Return where one of C's functions is in this process."""
    library = ctypes.CDLL("ucrtbase" if sys.platform == "win32" else None)
    return ctypes.cast(getattr(library, name), ctypes.c_void_p).value or 0
