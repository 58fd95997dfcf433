"""The options of commands that run a text through a model window by window: eval and imatrix."""

import click

__all__ = ["CHUNKS", "WINDOW"]

WINDOW = click.option(
    "-c",
    "--ctx",
    "n_ctx",
    default=512,
    type=click.IntRange(4),
    help="Tokens per window; default: 512.",
)
CHUNKS = click.option("--chunks", type=click.IntRange(1), help="Most windows; default: all.")
