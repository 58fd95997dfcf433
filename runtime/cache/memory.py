"""How much memory there is: what the system says is free, within a container's limit."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["free_memory", "physical_memory"]

_ROOT = Path("/")  # of the file system; tests put another one here
# Where a container finds its own group, versions 2 and 1: limit, use, and how memory.stat says it.
_GROUPS = (
    ("sys/fs/cgroup", "memory.max", "memory.current", ""),
    ("sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
)


def free_memory() -> int | None:
    """Return the bytes that programs may still take, None where the system does not say."""
    try:
        lines = (_ROOT / "proc/meminfo").read_text().splitlines()
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
    """Yield what a container's memory limit leaves; cached files make room when it is needed."""
    yield free
    for folder, limit_name, used_name, prefix in _GROUPS:
        try:
            limit = (_ROOT / folder / limit_name).read_text().strip()
            used = int((_ROOT / folder / used_name).read_text())
            if limit != "max":
                yield max(int(limit) - used + _cached(_ROOT / folder, prefix), 0)
        except (OSError, ValueError):
            continue


def _cached(folder: Path, prefix: str) -> int:
    """Return the bytes of files among what a control group uses."""
    names = f"{prefix}active_file", f"{prefix}inactive_file"
    lines = (folder / "memory.stat").read_text().splitlines()
    return sum(int(n) for name, n in (line.split() for line in lines) if name in names)
