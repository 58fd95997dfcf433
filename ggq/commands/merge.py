"""Merge the shards of a split GGUF model into one file.

Copies tensors unchanged; the reader finds and checks the shards.
"""

from pathlib import Path

import click

from ggq.commands._reporting import JSON, tell
from ggq.errors import UsageError, printable
from ggq.gguf import GGUFWriter, open_gguf, spec
from ggq.gguf.copy import copy_tensors
from ggq.gguf.units import format_size

SECTION = "Files"


@click.command()
@click.argument("first", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Overwrite an existing file.")
@JSON
def command(first: Path, out: Path, force: bool, as_json: bool) -> None:
    """Merge the model whose first shard is FIRST into the single file OUT."""
    with open_gguf(first) as f, GGUFWriter(out, force) as writer:
        if spec.KEY_SPLIT_COUNT not in f.metadata:
            raise UsageError(
                f"{printable(first)}: is no shard of a split model; it is one file already"
            )
        writer.copy_metadata(f.metadata)
        copy_tensors(f, writer)
        (plan,) = writer.plan()
    facts = {"path": str(plan.path), "tensors": len(plan.tensors), "bytes": plan.nbytes}
    line = f"{printable(plan.path)}  {len(plan.tensors)} tensors  {format_size(plan.nbytes)}"
    tell(as_json, facts, [line])
