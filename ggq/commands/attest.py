"""Write an in-toto statement of what a GGUF file is made of, and sign the file."""

from __future__ import annotations

import json
from pathlib import Path

import click

from ggq.errors import UsageError, printable
from ggq.gguf import open_gguf
from ggq.hub import resolve_model
from ggq.outputs import not_of, output_file, write_text

SECTION = "Convert"

PATH = click.Path(path_type=Path)


@click.command()
@click.argument("file")
@click.option("-o", "--output", "out", type=PATH, help="File to write; default: standard output.")
@click.option(
    "--private-key", type=PATH, help="Also sign FILE, with this elliptic curve key (PEM)."
)
@click.option("--signature", type=PATH, help="File of the signature; default: FILE.sig.")
@click.option("--force", is_flag=True, help="Overwrite the files.")
def command(
    file: str, out: Path | None, private_key: Path | None, signature: Path | None, force: bool
) -> None:
    """Write an in-toto statement about FILE: its SHA-256, and how it was made (SLSA provenance).

    FILE: a GGUF file converted with --provenance or by passes, or the name of a fetched model.
    Signing needs the extra sign (OpenSSF model-signing); ggq verify --signature checks it.
    """
    from ggq.converters import attest

    if signature is not None and private_key is None:
        raise UsageError("--signature: give --private-key, too")
    path = resolve_model(file)
    signed = signature or Path(f"{path}.sig")
    for one in (out, signed if private_key is not None else None):
        if one is not None:
            output_file(not_of(one, path, private_key), force)
    with open_gguf(path) as f:
        text = json.dumps(attest.statement(f), indent=1)
        f.check_unchanged()
        if private_key is not None and len(f.shards) > 1:
            raise UsageError(f"{printable(path)}: has shards; one file can be signed (ggq merge)")
    if private_key is not None:
        attest.sign(Path(path), private_key, signed, force)
    if out is None:
        click.echo(text)
    else:
        write_text(out, f"{text}\n")
