"""Turn texts into vectors."""

from __future__ import annotations

import json
from typing import Any

import click

from ggq.commands._texts import opened, text_options, texts_of

SECTION = "Run"

_POOLINGS = ("none", "mean", "cls", "last", "rank")


@click.command()
@click.argument("model")
@click.argument("words", metavar="[TEXT]...", nargs=-1)
@click.option(
    "--pooling",
    type=click.Choice(_POOLINGS),
    help="How token vectors become one; default: as the file says.",
)
@click.option(
    "--dimensions",
    type=click.IntRange(min=1),
    metavar="N",
    help="Only the first N numbers, for models trained for it (Matryoshka).",
)
@click.option(
    "--prompt-name",
    metavar="NAME",
    help="Put the file's prompt of this name before each text: query, document, ...",
)
@click.option("--prompt", metavar="TEXT", help="Put this before each text instead.")
@click.option(
    "--normalize/--no-normalize", default=True, show_default=True, help="Scale vectors to length 1."
)
@text_options
def command(model: str, words: tuple[str, ...], **options: Any) -> None:
    """Print a line of numbers for each TEXT, or for each line of files or of standard input.

    MODEL: a GGUF file, or the name of a fetched model (ggq list).
    """
    texts = texts_of(words, options)
    names = ("pooling", "dimensions", "prompt_name", "prompt", "normalize", "truncate")
    with opened(model, options) as found:
        vectors = found.embed(texts, **{name: options[name] for name in names})
    for number, vector in enumerate(vectors):
        if options["as_json"]:
            line = {"index": number, "text": texts[number], "embedding": vector.tolist()}
            click.echo(json.dumps(line, ensure_ascii=False))
            continue
        for row in vector.reshape(-1, vector.shape[-1]):  # several where nothing is pooled
            click.echo(" ".join(f"{x:.8g}" for x in row))
