"""How fast a file's disk reads: pieces of the file past the system's cache, at random places."""

from __future__ import annotations

import mmap
import os
import random
import time
from pathlib import Path

__all__ = ["disk_rate"]

_PIECE = 1 << 20  # about an expert's matrix
_SECONDS = 0.5


def disk_rate(path: Path) -> float | None:
    """Return bytes per second; None where the system cannot read past its cache, or not here."""
    if not hasattr(os, "O_DIRECT") or path.stat().st_size < 2 * _PIECE:
        return None
    try:
        file = os.open(path, os.O_RDONLY | os.O_DIRECT)
    except OSError:  # a file system in memory
        return None
    buffer, last = mmap.mmap(-1, _PIECE), path.stat().st_size // _PIECE - 1
    read, begun = 0, time.perf_counter()
    try:
        while (spent := time.perf_counter() - begun) < _SECONDS:
            read += os.preadv(file, [buffer], random.randint(0, last) * _PIECE)
    except OSError:
        return None
    finally:
        os.close(file)
    return read / spent if read else None
