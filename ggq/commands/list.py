"""List the fetched models, and those that can be fetched by a short name."""

import json

import click

SECTION = "Run"
ALIASES = ("ls",)


@click.command()
@click.option(
    "--available", is_flag=True, help="Show the short names that ggq knows, with their licences."
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list of objects.")
def command(available: bool, as_json: bool) -> None:
    """Show the models on this machine: fetched by ggq, or in the Hugging Face cache."""
    from ggq import hub
    from ggq.commands._models import show_available
    from ggq.errors import printable

    if available:
        show_available(as_json)
        return
    models = hub.stored_models()
    if as_json:
        rows = [{"name": m.name, "size": m.size, "path": str(m.path)} for m in models]
        click.echo(json.dumps(rows, indent=1))
        return
    for m in models:
        click.echo(f"{printable(m.name):<48} {m.size / 1e6:>9.0f} MB  {printable(m.path, 400)}")
    if not models:
        click.echo(
            "no models yet: ggq list --available shows what ggq pull NAME can fetch", err=True
        )
