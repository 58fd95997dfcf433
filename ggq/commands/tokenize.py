"""Show how a model's tokenizer splits a text."""

from __future__ import annotations

import json
import sys

import click

SECTION = "Files"


@click.command()
@click.argument("file")
@click.argument("text")
@click.option("--ids", "ids_only", is_flag=True, help="Only the ids, on one line.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list of ids and texts.")
@click.option("--no-bos", is_flag=True, help="Leave out the BOS and EOS tokens that the file adds.")
@click.option(
    "--parse-special", is_flag=True, help="Read control tokens in TEXT as such, not as text."
)
def command(
    file: str, text: str, ids_only: bool, as_json: bool, no_bos: bool, parse_special: bool
) -> None:
    """Show the tokens of TEXT ("-" reads it from standard input).

    FILE: a GGUF file, or the name of a fetched model (ggq list).
    """
    from ggq.errors import printable
    from ggq.gguf import open_gguf
    from ggq.hub import resolve_model
    from ggq.runtime.tokenizers import tokenizer_from_gguf

    path = resolve_model(file)
    if text == "-":
        text = sys.stdin.buffer.read().decode("utf-8", "replace")
    with open_gguf(path) as gguf:
        tokenizer = tokenizer_from_gguf(gguf)
    ids = tokenizer.encode(text, add_special=not no_bos, parse_special=parse_special)
    if ids_only:
        click.echo(" ".join(map(str, ids)))
        return
    if as_json:
        texts = [tokenizer.token_bytes(token).decode("utf-8", "backslashreplace") for token in ids]
        rows = [{"id": i, "text": text} for i, text in zip(ids, texts, strict=True)]
        click.echo(json.dumps(rows))
        return
    for token in ids:
        data = tokenizer.token_bytes(token)
        try:
            shown = printable(data.decode())
        except UnicodeDecodeError:  # half a character
            shown = "".join(f"<0x{byte:02X}>" for byte in data)
        click.echo(f"{token:>8}  '{shown}'")
