"""SHA-256 of the tensors of a GGUF file, independent of its metadata and of splits.

Prints lines like llama-gguf-hash --sha256, and checks a file against such lines.
"""

import hashlib
import json
from pathlib import Path

import click

from ggq.errors import FormatError, UsageError, printable
from ggq.gguf import GGUFFile, open_gguf
from ggq.gguf.copy import slabs
from ggq.hub import resolve_model

SECTION = "Files"


@click.command()
@click.argument("file")
@click.option("--no-layer", is_flag=True, help="Print only the hash of all tensors together.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object of hashes.")
@click.option(
    "--check", "manifest", type=click.Path(path_type=Path), help="Compare with a file of hashes."
)
def command(file: str, no_layer: bool, as_json: bool, manifest: Path | None) -> None:
    """Print the SHA-256 of every tensor of FILE and of all of them in file order.

    FILE: a GGUF file, or the name of a fetched model (ggq list).
    """
    with open_gguf(resolve_model(file)) as f:
        hashes = tensor_hashes(f)
        f.check_unchanged()
    if manifest is not None:
        _check(hashes, manifest, file)
        click.echo(f"{printable(file)}: {len(hashes) - 1} tensors as in {printable(manifest)}")
        return
    if as_json:
        tensors = {} if no_layer else {name: one for name, one in hashes.items() if name}
        click.echo(json.dumps({"file": file, "sha256": hashes[""], "tensors": tensors}))
        return
    for name, digest in hashes.items():
        if name and not no_layer:
            click.echo(f"sha256    {digest}  {printable(file)}:{printable(name)}")
    click.echo(f"sha256    {hashes['']}  {printable(file)}")


def tensor_hashes(f: GGUFFile) -> dict[str, str]:
    """Return name -> SHA-256 of a tensor's data; "" is that of all data in file order."""
    whole, hashes = hashlib.sha256(), {}
    for tensor in f.tensors.values():
        one = hashlib.sha256()
        for slab in slabs(f, tensor):
            one.update(slab.data)
            whole.update(slab.data)
        hashes[tensor.name] = one.hexdigest()
    return {**hashes, "": whole.hexdigest()}


def _check(hashes: dict[str, str], manifest: Path, file: str) -> None:
    try:
        lines = manifest.read_text("utf-8").splitlines()
    except OSError as error:
        raise UsageError(f"{printable(manifest)}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{printable(manifest)}: not UTF-8 text") from None
    found = 0
    for line in lines:
        fields = line.split(maxsplit=2)
        if len(fields) != 3 or fields[0] != "sha256":
            continue
        # The file may have been elsewhere: what counts is the tensor's name after the last colon.
        name = fields[2].rpartition(":")[2] if ":" in fields[2] else ""
        if name not in hashes:
            continue
        found += 1
        if hashes[name] != fields[1]:
            what = f"tensor '{printable(name)}'" if name else "the data"
            raise FormatError(f"{printable(file)}: {what} differs from {printable(manifest)}")
    if not found:
        raise UsageError(f"{printable(manifest)}: holds no SHA-256 of this file's tensors")
