"""Options about pictures, for every command that opens a model."""

from __future__ import annotations

import click

MMPROJ = click.option(
    "--mmproj",
    metavar="FILE",
    help="Projector file of a model that takes pictures; default: one beside MODEL; off: none.",
)
