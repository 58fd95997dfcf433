"""List the fetched models, and those that can be fetched by a short name."""

import json

import click


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list of objects.")
def command(as_json: bool) -> None:
    """Show the models on this machine: fetched by ggq, or in the Hugging Face cache."""
    from ggq import hub
    from ggq.errors import printable

    models = hub.stored_models()
    if as_json:
        rows = [{"name": m.name, "size": m.size, "path": str(m.path)} for m in models]
        click.echo(json.dumps(rows, indent=1))
        return
    for m in models:
        click.echo(f"{printable(m.name):<48} {m.size / 1e6:>9.0f} MB  {printable(m.path, 400)}")
    here = {m.name for m in models}
    for name, known in hub.KNOWN.items():
        if name not in here:
            click.echo(f"{name:<48} {known.size / 1e6:>9.0f} MB  not fetched: ggq pull {name}")
