"""Fetch a model by name and print where it is.

Progress goes to stderr; the last line of stdout is the path.
"""

import click


@click.command()
@click.argument("name")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
def command(name: str, quiet: bool) -> None:
    """Fetch model NAME: smollm2-135m, or org/repo[:Q4_K_M] of the Hugging Face hub.

    What is here already is verified, not fetched again.
    """
    from ggq import hub

    click.echo(hub.pull(name, lambda line: None if quiet else click.echo(line, err=True)))
