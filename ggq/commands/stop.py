"""Have a server unload a model."""

import click

from ggq.commands._server import server_options


@click.command()
@click.argument("name")
@server_options
def command(name: str, server: str, server_key: str | None) -> None:
    """Have ggq serve unload model NAME, as ggq ps shows it; its answers are written first."""
    from ggq.commands._server import asked

    asked(server, server_key, "/models/unload", {"model": name})
