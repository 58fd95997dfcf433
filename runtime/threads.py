"""How many threads suit this machine: physical cores, less what a container forbids."""

from __future__ import annotations

import os
import sys
from pathlib import Path

__all__ = ["default_threads"]

_SYS = Path("/sys/devices/system/cpu")


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None


def _allowed() -> set[int]:
    """Return the logical processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return set(os.sched_getaffinity(0))
    return set(range(os.cpu_count() or 1))


def _quota() -> float | None:
    """Return the processors' worth of time a cgroup grants, None without a limit."""
    text = _read(Path("/sys/fs/cgroup/cpu.max"))
    if text:
        limit, _, period = text.partition(" ")
        return None if limit == "max" else int(limit) / int(period or 100000)
    limit = _read(Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"))
    period = _read(Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us"))
    return int(limit) / int(period) if limit and period and int(limit) > 0 else None


def _performance_cores(cpus: set[int]) -> set[int]:
    """Drop efficiency cores where the system tells them apart by top frequency or capacity."""
    for name in ("cpu_capacity", "cpufreq/cpuinfo_max_freq"):
        rated = {c: _read(_SYS / f"cpu{c}" / name) for c in cpus}
        if all(v and v.isdigit() for v in rated.values()):
            top = max(int(v or 0) for v in rated.values())
            # E-cores run or rate well below the fastest; favoured cores differ by a few percent.
            return {c for c, v in rated.items() if int(v or 0) >= 0.8 * top}
    return cpus


def _physical(cpus: set[int]) -> int:
    """Count the cores behind logical processors."""
    siblings = {_read(_SYS / f"cpu{c}/topology/thread_siblings_list") or str(c) for c in cpus}
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
    return max(1, min(count, int(quota) if quota and quota >= 1 else count))
