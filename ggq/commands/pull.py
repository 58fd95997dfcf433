"""Fetch a model by name and print where it is.

Progress goes to stderr; the last line of stdout is the path.
"""

import click

from ggq.commands._reporting import JSON, tell

SECTION = "Run"


@click.command()
@click.argument("name", required=False)
@click.option("--list", "as_list", is_flag=True, help="Show the short names and their licences.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
@JSON
def command(name: str | None, as_list: bool, quiet: bool, as_json: bool) -> None:
    """Fetch model NAME: a short name, or org/repo[:Q4_K_M] of the Hugging Face hub.

    What is here already is verified, not fetched again; an interrupted download is resumed.
    """
    from ggq import hub
    from ggq.commands._models import show_available
    from ggq.progress import progress_when_told

    if as_list:
        show_available(as_json)
        return
    if name is None:
        raise click.UsageError("name a model: ggq pull --list shows the short names")

    def report(line: str) -> None:
        if not quiet:
            click.echo(line, err=True)

    with progress_when_told(quiet) as progress:
        path = hub.pull(name, report, progress)
    facts = {"name": name, "path": str(path), "bytes": path.stat().st_size}
    tell(as_json, facts, [str(path)])
