"""Print a classifier's scores of texts."""

from __future__ import annotations

import json
from typing import Any

import click

from ggq.commands._texts import opened, text_options, texts_of
from ggq.errors import printable

SECTION = "Run"


@click.command()
@click.argument("model")
@click.argument("words", metavar="[TEXT]...", nargs=-1)
@text_options
def command(model: str, words: tuple[str, ...], **options: Any) -> None:
    """Print each TEXT's best label, its score, and those of all labels with --json.

    Scores are the model's own, before softmax or sigmoid. Texts: arguments, lines of files, or
    lines of standard input. MODEL: a GGUF file of a classifier, or a fetched model's name.
    """
    texts = texts_of(words, options)
    with opened(model, options) as found:
        scores = found.classify(texts, truncate=options["truncate"])
        labels = found.hparams.readout.labels
    for text, row in zip(texts, scores.tolist(), strict=True):
        if options["as_json"]:
            line = {"text": text, "scores": dict(zip(labels, row, strict=True))}
            click.echo(json.dumps(line, ensure_ascii=False))
        else:
            best = max(range(len(row)), key=row.__getitem__)
            click.echo(f"{printable(labels[best])}\t{row[best]:.6g}\t{printable(text, 400)}")
