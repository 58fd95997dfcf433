"""Options about pictures, for every command that opens a model."""

from __future__ import annotations

import click

MMPROJ = click.option(
    "--mmproj",
    metavar="FILE",
    help="The projector of a model that takes pictures; default: the one beside MODEL; off: none.",
)
