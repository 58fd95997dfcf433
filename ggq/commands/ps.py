"""Show the models that a server has in memory."""

import json
from datetime import datetime, timezone

import click

from ggq.commands._server import server_options


@click.command()
@server_options
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list of objects.")
def command(server: str, server_key: str | None, as_json: bool) -> None:
    """Show the models that ggq serve has in memory, what they take, and for how long."""
    from ggq.commands._server import asked
    from ggq.errors import printable
    from ggq.gguf.units import format_size

    models = asked(server, server_key, "/api/ps")["models"]
    if as_json:
        click.echo(json.dumps(models, indent=1))
        return
    for model in models:
        name, size = model["name"].removesuffix(":latest"), format_size(model["size"])
        context = f"{model['context_length']} tokens"
        click.echo(
            f"{printable(name, 80):<48} {size:>10} {context:>14}  {_until(model['expires_at'])}"
        )
    if not models:
        click.echo("no model is loaded: a request that names one loads it", err=True)


def _until(text: str) -> str:
    """Return how long a model stays, in words."""
    end = datetime.fromisoformat(text.replace("Z", "+00:00"))
    seconds = (end - datetime.now(timezone.utc)).total_seconds()
    if seconds > 1e8:
        return "stays"
    return f"{max(seconds, 0):.0f} s" if seconds < 120 else f"{seconds / 60:.0f} minutes"
