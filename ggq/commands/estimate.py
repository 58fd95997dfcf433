"""Tell what a model takes: file size per type, memory per context, speed at best.

Reads headers only; the speed is this machine's measured memory bandwidth over the weights, and its
disk's where they do not fit into memory.
"""

from __future__ import annotations

import json as json_format
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from ggq.errors import printable

SECTION = "Convert"


@click.command()
@click.argument("source")
@click.option(
    "--bandwidth",
    type=click.FloatRange(min=0.1),
    metavar="GB/S",
    help="Memory bandwidth; default: measured here, in half a second.",
)
@click.option(
    "--memory",
    type=click.FloatRange(min=0.001),
    metavar="GB",
    help="Memory that it has to fit in; default: what is free here.",
)
@click.option(
    "--disk",
    type=click.FloatRange(min=0.001),
    metavar="GB/S",
    help="What the disk reads, for models that do not fit; default: measured on SOURCE.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    source: str, bandwidth: float | None, memory: float | None, disk: float | None, as_json: bool
) -> None:
    """Say what SOURCE takes in every file type, and which fit in this machine's memory.

    SOURCE is a Hugging Face folder, a repository id or a GGUF file.
    """  # fmt: skip
    from ggq.commands import _sizes
    from ggq.gguf.units import format_size
    from ggq.runtime.cache.memory import free_memory
    from ggq.runtime.engine.projectors import beside

    hp, found = _sizes.sizes(source)
    path = Path(source)
    projector = None
    if path.is_file():
        found.insert(0, _sizes.present(path)[1])
        projector = beside(path, hp.n_embd, hp.arch)
    if projector is not None:
        found = [replace(size, projector=projector.stat().st_size) for size in found]
    rate = bandwidth * 1e9 if bandwidth else measured_bandwidth()
    free = int(memory * 1e9) if memory else free_memory()
    caches = _sizes.cache_sizes(hp)
    rows = [_row(size, caches, rate, free) for size in found]
    read = disk * 1e9 if disk else None
    if any(row["disk_bytes_per_token"] for row in rows):
        read = read or measured_disk(path)
        for row in rows:
            _slow_down(row, read)
    if as_json:
        facts: dict[str, Any] = {"bandwidth_bytes_per_s": rate, "memory_bytes": free, "types": rows}
        facts["disk_bytes_per_s"] = read
        if projector is not None:
            facts["projector"] = str(projector)
        click.echo(json_format.dumps(facts, indent=1))
        return
    _table(rows, list(caches), rate, free)
    if any(row["disk_bytes_per_token"] for row in rows):
        _tell_of_disk(read)
    if projector is not None:
        size = format_size(projector.stat().st_size)
        click.echo(f"memory counts {printable(projector.name)}, {size}, for pictures", err=True)


def measured_bandwidth() -> float:
    """Return the bytes per second that this machine's threads read."""
    from ggq.runtime.engine.cpu.threads import default_threads
    from ggq.runtime.measure.roofline import read_bandwidth

    return read_bandwidth(default_threads(), repeats=3)


def measured_disk(source: Path) -> float | None:
    """Return the bytes per second that the disk under a file or folder reads, where it is told."""
    from ggq.runtime.measure.disk import disk_rate

    files = [source] if source.is_file() else [f for f in source.glob("*") if f.is_file()]
    return disk_rate(max(files, key=lambda f: f.stat().st_size)) if files else None


def _slow_down(row: dict[str, Any], disk: float | None) -> None:
    """Take what a token waits for the disk into a row's speed; unknown where the disk's is."""
    read = row["disk_bytes_per_token"]
    if read:
        least = row["tokens_per_s_at_most"]
        row["tokens_per_s_at_most"] = None if disk is None else min(least, disk / read)


def _tell_of_disk(disk: float | None) -> None:
    here = "of unknown speed (tell --disk GB/S)" if disk is None else f"at {disk / 1e9:.2f} GB/s"
    click.echo(
        f"what does not fit is read from disk for each token, {here}: of experts the share that is "
        "not in memory",
        err=True,
    )


def _row(size: Any, caches: dict[int, int], rate: float, free: int | None) -> dict[str, Any]:
    from ggq.commands._sizes import fits

    return {
        "type": size.type,
        "file_bytes": size.n_bytes,
        "memory_bytes": {n: size.memory(cache) for n, cache in caches.items()},
        "tokens_per_s_at_most": rate / size.per_token,
        "disk_bytes_per_token": 0 if free is None else size.from_disk(min(caches.values()), free),
        "fits": {n: free is None or fits(size, cache, free) for n, cache in caches.items()},
    }


def _table(rows: list[dict[str, Any]], contexts: list[int], rate: float, free: int | None) -> None:
    from ggq.gguf.units import format_size

    heads = "".join(f"{f'memory at {n}':>20}" for n in contexts)
    click.echo(f"{'type':10}{'file':>10}{heads}{'t/s at most':>14}")
    for row in rows:
        cells = (
            format_size(row["memory_bytes"][n]) + ("  " if row["fits"][n] else " !")
            for n in contexts
        )
        line = "".join(f"{cell:>20}" for cell in cells)
        most = row["tokens_per_s_at_most"]
        speed = "?" if most is None else f"{most:.1f}" if most >= 1 else f"{most:.2g}"
        click.echo(f"{row['type']:10}{format_size(row['file_bytes']):>10}{line}{speed:>14}")
    room = "unknown" if free is None else format_size(free)
    click.echo(f"free memory {room} (!: does not fit); reading {rate / 1e9:.1f} GB/s", err=True)
