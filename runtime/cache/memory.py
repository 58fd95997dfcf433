"""How much memory there is: what the system says is free, within a container's limit."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["free_memory", "physical_memory"]


def free_memory() -> int | None:
    """Return the bytes that programs may still take, None where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(x.split()[1]) * 1024 for x in lines if x.startswith("MemAvailable"))
    except (OSError, StopIteration):
        installed = physical_memory()
        if installed is None:
            return None
        free = installed
    return min(free, *_limits(free))


def physical_memory() -> int | None:
    """Return the bytes that this machine has, None where the system does not say."""
    if "SC_PHYS_PAGES" not in getattr(os, "sysconf_names", {}):
        return None
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _limits(free: int) -> Iterator[int]:
    """Yield what a container's memory limit leaves."""
    yield free
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
        if limit != "max":
            yield max(int(limit) - used, 0)
    except (OSError, ValueError):
        return
