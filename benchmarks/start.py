"""How long until the first token: `ggq chat MODEL -p Hi --max-tokens 1` in new processes.

    python -m ggq.build_kernels --sets avx512 --out /tmp/kernels
    python benchmarks/start.py MODEL [--kernels /tmp/kernels] [--sets avx512,avx2] [--other TREE]

`compiled`: nothing is at hand (a fresh GGQ_CACHE, a checkout). `shipped`: a fresh GGQ_CACHE and the
kernels of a release wheel. `again`: with what the first row compiled; `shipped again` likewise.
--other TREE takes turns with another checkout, which compiles at its first start and is then timed
as `other again`. The page cache and Python's bytecode are warm: one start goes before. Processor
seconds, of the process and its helpers, say more than wall time where other programs run.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent


def spent() -> float:
    """Return the processor seconds of all processes that were waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def start(
    model: str, cache: Path, isa: str, kernels: str, tree: Path = HERE
) -> tuple[float, float]:
    """Return the seconds of one process from its start to its end, and processor seconds."""
    settings = {"GGQ_CACHE": str(cache), "GGQ_KERNELS": kernels, "PYTHONPATH": str(tree)}
    environment = {**os.environ, **settings, "GGQ_ISA": isa}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    command = [sys.executable, "-m", "ggq", "chat", model, "-p", "Hi", "--max-tokens", "1"]
    begin, before = time.perf_counter(), spent()
    done = subprocess.run(command, cwd=cache.parent, env=environment, capture_output=True)
    if done.returncode:
        sys.exit(done.stderr.decode(errors="replace"))
    return time.perf_counter() - begin, spent() - before


def measure(
    given: argparse.Namespace, isa: str, folder: Path
) -> dict[str, list[tuple[float, float]]]:
    """Return the seconds of each row; rows take turns."""
    old, fresh, other = folder / "old", folder / "fresh", folder / "other"
    found: dict[str, list[tuple[float, float]]] = {}

    def timed(row: str, *arguments: object) -> None:
        found.setdefault(row, []).append(start(given.model, *arguments))  # type: ignore[arg-type]

    start(given.model, old, isa, "none")
    if given.other:
        start(given.model, other, isa, "none", given.other)
    for turn in range(given.repeats):
        if turn < given.cold:
            shutil.rmtree(fresh, ignore_errors=True)
            timed("compiled", fresh, isa, "none")
        timed("again", old, isa, "none")
        if given.kernels:
            shutil.rmtree(fresh, ignore_errors=True)
            timed("shipped", fresh, isa, given.kernels)
            timed("shipped again", fresh, isa, given.kernels)
        if given.other:
            timed("other again", other, isa, "none", given.other)
    return found


def processor() -> str:
    """Return the processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(n.split(":", 1)[1].strip() for n in lines if n.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def main() -> None:
    """Print a table of medians and minima."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--kernels", default="", help="folder that build_kernels wrote")
    parser.add_argument("--sets", default="", help="sets to force, by commas; the best one")
    parser.add_argument("--other", type=Path, help="another checkout")
    parser.add_argument("-r", "--repeats", type=int, default=7)
    parser.add_argument("--cold", type=int, default=3, help="turns that compile")
    given = parser.parse_args()
    given.model = str(Path(given.model).resolve())
    given.kernels = given.kernels and str(Path(given.kernels).resolve())
    load = f"load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    print(f"{processor()}, {os.cpu_count()} cores, {load}\n")
    print("| set | start | median s | minimum s | median processor s | turns |")
    print("|---|---|---|---|---|---|")
    for isa in given.sets.split(","):
        with tempfile.TemporaryDirectory() as folder:
            for row, pairs in measure(given, isa, Path(folder)).items():
                walls, works = zip(*pairs, strict=True)
                wall, work = map(statistics.median, (walls, works))
                figures = f"{wall:.2f} | {min(walls):.2f} | {work:.2f} | {len(pairs)}"
                print(f"| {isa or 'best'} | {row} | {figures} |", flush=True)


if __name__ == "__main__":
    main()
