"""Have a server unload a model."""

import click

from ggq.commands._server import server_options


@click.command()
@click.argument("name")
@server_options
def command(name: str, server: str, server_key: str | None) -> None:
    """Have ggq serve unload the model NAME of ggq ps, once the answers under way are written."""
    from ggq.commands._server import asked

    asked(server, server_key, "/models/unload", {"model": name})
