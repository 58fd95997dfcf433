"""How many threads suit this machine: physical cores, less what a container forbids."""

from __future__ import annotations

import os
import sys
from pathlib import Path

__all__ = ["default_threads"]

_ROOT = Path("/")  # of the file system; tests put another one here
_SYS = "sys/devices/system/cpu"


def _read(path: str | Path) -> str | None:
    try:
        return (_ROOT / path).read_text().strip()
    except (OSError, UnicodeDecodeError):
        return None


def _allowed() -> set[int]:
    """Return the logical processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return set(os.sched_getaffinity(0))
    return set(range(os.cpu_count() or 1))


def _group_paths(controller: str) -> list[str]:
    """Return this process's control group and those above it, each with a slash before, or none."""
    for line in (_read("proc/self/cgroup") or "").splitlines():
        _, names, path = line.split(":", 2)
        if controller in names.split(","):
            parts = [p for p in path.split("/") if p and p != ".."]
            return ["".join(f"/{p}" for p in parts[:n]) for n in range(len(parts), -1, -1)]
    return [""]


def _ratio(limit: str | None, period: str | None) -> float | None:
    """Return limit / period, None where there is no limit or these are no numbers."""
    if not limit or not limit.isdigit() or not (period or "100000").isdigit():
        return None
    return int(limit) / max(1, int(period or 100000))


def _quota() -> float | None:
    """Return the processors' worth of time that control groups grant, None without a limit."""
    found = []
    for group in _group_paths(""):  # version 2 has one hierarchy, without a name
        limit, _, period = (_read(f"sys/fs/cgroup{group}/cpu.max") or "").partition(" ")
        found.append(_ratio(limit, period))
    for group in _group_paths("cpu"):
        folder = f"sys/fs/cgroup/cpu{group}/cpu.cfs_"
        found.append(_ratio(_read(f"{folder}quota_us"), _read(f"{folder}period_us")))
    return min((q for q in found if q is not None), default=None)


def _listed(text: str) -> set[int]:
    """Return the numbers of a list such as 0-3,8."""
    found: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        found |= set(range(int(first), int(last or first) + 1))
    return found


def _performance_cores(cpus: set[int]) -> set[int]:
    """Drop efficiency cores where the system tells them apart: by kind, capacity or frequency."""
    kind = _read("sys/devices/cpu_core/cpus")  # Intel's hybrid processors
    if kind and cpus & _listed(kind):
        return cpus & _listed(kind)
    for name in ("cpu_capacity", "cpufreq/cpuinfo_max_freq"):
        rated = {c: _read(f"{_SYS}/cpu{c}/{name}") for c in cpus}
        if all(v and v.isdigit() for v in rated.values()):
            top = max(int(v or 0) for v in rated.values())
            # E-cores run or rate well below the fastest; favoured cores differ by a few percent.
            return {c for c, v in rated.items() if int(v or 0) >= 0.8 * top}
    return cpus


def _physical(cpus: set[int]) -> int:
    """Count the cores behind logical processors."""
    siblings = {_read(f"{_SYS}/cpu{c}/topology/thread_siblings_list") or str(c) for c in cpus}
    return len(siblings)


def _sysctl_performance_cores() -> int | None:
    """Return the performance cores of a Mac."""
    import subprocess

    for key in ("hw.perflevel0.physicalcpu", "hw.physicalcpu"):
        done = subprocess.run(["sysctl", "-n", key], capture_output=True, text=True, check=False)
        if done.returncode == 0 and done.stdout.strip().isdigit():
            return int(done.stdout)
    return None


def default_threads() -> int:
    """Return the number of threads that decoding uses unless told otherwise."""
    if sys.platform == "darwin":
        return _sysctl_performance_cores() or os.cpu_count() or 1
    cpus = _allowed()
    count = _physical(_performance_cores(cpus)) if sys.platform == "linux" else len(cpus)
    quota = _quota()
    return max(1, min(count, int(quota) if quota is not None else count))
