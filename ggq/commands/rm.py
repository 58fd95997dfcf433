"""Delete a fetched model."""

import sys

import click

from ggq.commands._reporting import JSON, tell

SECTION = "Run"
ALIASES = ("remove",)


@click.command()
@click.argument("name")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@JSON
def command(name: str, yes: bool, as_json: bool) -> None:
    """Delete the fetched model NAME, as ggq list shows it; other files are never touched."""
    from ggq import hub
    from ggq.errors import printable

    if not yes and sys.stdin.isatty():
        click.confirm(f"Delete {printable(name)}?", abort=True, err=as_json)
    paths = hub.remove(name)
    facts = {"name": name, "deleted": [str(path) for path in paths]}
    tell(as_json, facts, (f"deleted {printable(path, 400)}" for path in paths))
