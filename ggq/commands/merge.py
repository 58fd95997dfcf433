"""Merge the shards of a split GGUF model into one file.

Copies tensors unchanged; the reader finds and checks the shards.
"""

from pathlib import Path

import click

from ggq.errors import printable
from ggq.gguf import GGUFWriter, open_gguf
from ggq.gguf.copy import copy_tensors
from ggq.gguf.units import format_size

SECTION = "Files"


@click.command()
@click.argument("first", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Overwrite an existing file.")
def command(first: Path, out: Path, force: bool) -> None:
    """Merge the model whose first shard is FIRST into the single file OUT."""
    with open_gguf(first) as f, GGUFWriter(out, force) as writer:
        writer.copy_metadata(f.metadata)
        copy_tensors(f, writer)
        (plan,) = writer.plan()
    click.echo(f"{printable(plan.path)}  {len(plan.tensors)} tensors  {format_size(plan.nbytes)}")
