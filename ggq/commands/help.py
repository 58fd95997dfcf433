"""Show what a command does: the same as its --help."""

import click

SECTION = "Other"


@click.command()
@click.argument("name", metavar="[COMMAND]", required=False)
@click.pass_context
def command(ctx: click.Context, name: str | None) -> None:
    """Show the help of COMMAND, or the list of commands."""
    root = ctx.find_root()
    if name is None:
        click.echo(root.get_help())
        return
    group = root.command
    assert isinstance(group, click.Group)
    shown, found, _ = group.resolve_command(root, [name])
    assert found is not None
    with click.Context(found, info_name=shown, parent=root, max_content_width=100) as asked:
        click.echo(found.get_help(asked))
