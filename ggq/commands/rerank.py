"""Order documents by how well they answer a query."""

from __future__ import annotations

import json
from typing import Any

import click

from ggq.commands._texts import opened, text_options, texts_of
from ggq.errors import printable

SECTION = "Run"


@click.command()
@click.argument("model")
@click.argument("query")
@click.argument("words", metavar="[DOCUMENT]...", nargs=-1)
@click.option("-n", "--top-n", type=click.IntRange(min=1), metavar="N", help="Only the best N.")
@text_options
def command(model: str, query: str, words: tuple[str, ...], **options: Any) -> None:
    """Print score, number and text of each DOCUMENT, the best first.

    Documents: arguments, lines of files, or lines of standard input. MODEL: a GGUF file of a
    reranker, or the name of a fetched model (ggq list).
    """
    texts = texts_of(words, options)
    with opened(model, options) as found:
        ranked = found.rerank(query, texts, top_n=options["top_n"], truncate=options["truncate"])
    for index, score in ranked:
        if options["as_json"]:
            line = {"index": index, "relevance_score": score, "document": texts[index]}
            click.echo(json.dumps(line, ensure_ascii=False))
        else:
            click.echo(f"{score:.6g}\t{index}\t{printable(texts[index], 400)}")
