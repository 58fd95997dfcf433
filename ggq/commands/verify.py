"""Check a GGUF file: structure, keys, and on request every weight.

Finds what would stop or spoil a model; it repairs nothing.
"""

from collections import Counter
from collections.abc import Iterator

import click
import numpy as np

from ggq.errors import FormatError, GGQError, printable
from ggq.gguf import GGUFFile, TensorInfo, open_gguf, validate_model
from ggq.gguf.copy import slabs
from ggq.hub import resolve_model

SLAB_BYTES = 4 << 20  # decoded to float32, up to 32 times as much


@click.command()
@click.argument("file")
@click.option("--tensors", is_flag=True, help="Decode every tensor and look for NaN and infinity.")
def command(file: str, tensors: bool) -> None:
    """Check a GGUF file; end with 1 and one line where something is wrong.

    FILE: a path, or the name of a fetched model (ggq list).
    """
    with open_gguf(resolve_model(file)) as f:
        for warning in validate_model(f, vocab_only=not f.tensors):
            click.echo(f"warning: {warning}", err=True)
        checked = f"{len(f.metadata)} keys, {len(f.tensors)} tensors"
        if tensors:
            skipped = check_weights(f)
            checked += ", all weights finite"
            for name, count in skipped.items():
                click.echo(f"warning: {count} tensors of type {name} not decoded", err=True)
        f.check_unchanged()
    click.echo(f"{printable(file)}: ok ({checked})")


def check_weights(f: GGUFFile) -> Counter[str]:
    """Raise FormatError naming the first tensor with a NaN or infinity; count types not decoded."""
    skipped: Counter[str] = Counter()
    for tensor in f.tensors.values():
        try:
            finite = all(np.isfinite(values).all() for values in _decoded(f, tensor))
        except GGQError:  # a type that ggq cannot decode
            skipped[tensor.type_name] += 1
            continue
        if not finite:
            where = f"{printable(f.path)}: tensor '{printable(tensor.name)}'"
            raise FormatError(f"{where}: holds a NaN or infinite weight")
    return skipped


def _decoded(f: GGUFFile, tensor: TensorInfo) -> Iterator[np.ndarray]:
    from ggq import quants

    decode = quants.by_id(tensor.type_id).dequantize
    for slab in slabs(f, tensor, SLAB_BYTES):
        yield decode(slab)
