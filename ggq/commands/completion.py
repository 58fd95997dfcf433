"""Print what makes the Tab key complete commands and options in a shell.

click does the work; this command is the documented way to it.
"""

import click
from click.shell_completion import get_completion_class

from ggq.errors import GGQError

SECTION = "Other"
_VARIABLE = "_GGQ_COMPLETE"


@click.command()
@click.argument(
    "shell", metavar="SHELL", required=False, type=click.Choice(["bash", "zsh", "fish"])
)
@click.pass_context
def command(ctx: click.Context, shell: str | None) -> None:
    """Print the completion script for SHELL: bash, zsh or fish.

    bash and zsh: put eval "$(ggq completion bash)" into ~/.bashrc or ~/.zshrc. fish: ggq completion
    fish > ~/.config/fish/completions/ggq.fish
    """
    if shell is None:
        raise click.UsageError("name a shell: bash, zsh or fish")
    kind = get_completion_class(shell)
    assert kind is not None
    try:
        click.echo(kind(ctx.find_root().command, {}, "ggq", _VARIABLE).source())
    except RuntimeError as error:  # bash is not there, or too old
        raise GGQError(f"{shell}: {error}") from None
