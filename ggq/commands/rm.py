"""Delete a fetched model."""

import sys

import click

SECTION = "Run"
ALIASES = ("remove",)


@click.command()
@click.argument("name")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def command(name: str, yes: bool) -> None:
    """Delete the fetched model NAME, as `ggq list` shows it; other files are never touched."""
    from ggq import hub
    from ggq.errors import printable

    if not yes and sys.stdin.isatty():
        click.confirm(f"Delete {printable(name)}?", abort=True)
    for path in hub.remove(name):
        click.echo(f"deleted {printable(path, 400)}")
