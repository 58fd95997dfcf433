"""Split a GGUF file into shards.

Copies tensors unchanged; which tensor goes where is ggq.gguf.layout's matter.
"""

from pathlib import Path

import click

from ggq.commands._reporting import JSON, tell
from ggq.errors import UsageError, printable
from ggq.gguf import GGUFWriter, open_gguf
from ggq.gguf.copy import copy_tensors
from ggq.gguf.units import format_size, parse_size

SECTION = "Files"


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--max-size", metavar="SIZE", help="Most bytes of a shard, such as 2G or 500M.")
@click.option("--max-tensors", type=click.IntRange(min=1), help="Most tensors in a shard.")
@click.option("--dry-run", is_flag=True, help="Show the shards, write nothing.")
@click.option("--force", is_flag=True, help="Overwrite existing files.")
@JSON
def command(
    file: Path,
    out: Path,
    max_size: str | None,
    max_tensors: int | None,
    dry_run: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Split FILE into OUT-00001-of-0000N.gguf and so on."""
    if max_size is None and max_tensors is None:
        raise UsageError("give --max-size or --max-tensors")
    limit = parse_size(max_size) if max_size is not None else None
    with open_gguf(file) as f, GGUFWriter(out, force, limit, max_tensors) as writer:
        writer.copy_metadata(f.metadata)
        if dry_run:
            for t in f.tensors.values():
                writer.add_tensor(t.name, t.shape, t.type_id)
        else:
            copy_tensors(f, writer)
        plans = writer.plan()
    facts = [
        {"path": str(plan.path), "tensors": len(plan.tensors), "bytes": plan.nbytes}
        for plan in plans
    ]
    lines = (
        f"{printable(plan.path)}  {len(plan.tensors)} tensors  {format_size(plan.nbytes)}"
        for plan in plans
    )
    tell(as_json, {"shards": facts, "written": not dry_run}, lines)
