"""The ``ggq`` command: finds commands by file name, loads one when asked, ends in exit codes.

It knows nothing about what any command does: a file ``ggq/commands/set_metadata.py`` with a click
object named ``command`` is ``ggq set-metadata``; its docstring's first line is the short help.
"""

import ast
import gc
import importlib
import io
import os
import pkgutil
import sys
from importlib.util import find_spec

import click

import ggq
import ggq.commands
from ggq import machine_code, shipped
from ggq.errors import GGQError, naming_flags, printable, reason

EXIT_ERROR, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130
_ERROR_LIMIT = 2000  # characters of one message; names inside are already cut by errors.printable


def short_help(module_name: str) -> str:
    """Return the first docstring line of a module from its source, without importing it."""
    spec = find_spec(module_name)
    get_source = getattr(spec and spec.loader, "get_source", None)
    source = get_source(module_name) if get_source else None
    docstring = ast.get_docstring(ast.parse(source)) if source else None
    return docstring.splitlines()[0].rstrip(".") if docstring else ""


class LazyGroup(click.Group):
    """A click group whose commands are the modules of ``ggq.commands``, imported one at a time."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the command names: the module names with dashes, sorted."""
        names = (m.name for m in pkgutil.iter_modules(ggq.commands.__path__))
        return sorted(name.replace("_", "-") for name in names if not name.startswith("_"))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command's module and return its ``command``; None for an unknown name."""
        if cmd_name not in self.list_commands(ctx):
            return None
        command = importlib.import_module(f"ggq.commands.{cmd_name.replace('-', '_')}").command
        command.name = cmd_name
        for option in command.params:
            if isinstance(option, click.Option) and not option.envvar:
                flag = max(option.opts, key=len).lstrip("-")  # what users see, not our own name
                option.envvar = f"GGQ_{cmd_name}_{flag}".replace("-", "_").upper()
        return command

    def invoke(self, ctx: click.Context) -> None:
        """Run the command, drop its return value: only errors and ``ctx.exit`` set exit codes."""
        super().invoke(ctx)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table of commands from their sources: no command is imported for ``--help``."""
        modules = {
            name: f"ggq.commands.{name.replace('-', '_')}" for name in self.list_commands(ctx)
        }
        if modules:
            with formatter.section("Commands"):
                formatter.write_dl([(name, short_help(m)) for name, m in modules.items()])


@click.group(
    cls=LazyGroup,
    context_settings={
        "auto_envvar_prefix": "GGQ",
        "help_option_names": ["-h", "--help"],
        "max_content_width": 100,
    },
    epilog="Every option can also come from the environment, e.g. GGQ_CHAT_THREADS=4.",
)
@click.version_option(ggq.__version__, prog_name="ggq", message="%(prog)s %(version)s")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Convert models to GGUF and run them on the CPU."""
    ctx.with_resource(naming_flags())


def main(args: list[str] | None = None) -> int:
    """Run the command line; return 0 done, 1 an error, 2 wrong usage or 130 interrupted."""
    # Imports and vocabularies make a million objects that stay: looking through all of them for
    # garbage again and again is a tenth of the time to the first token.
    gc.set_threshold(100_000, 50, 100)
    machine_code.set_listener(_show_compiling)
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="replace")  # what a terminal cannot show becomes a ?
    try:
        code = _run(args)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        _forget_stdout()
        return EXIT_ERROR


def _run(args: list[str] | None) -> int:
    try:
        code = cli.main(args, prog_name="ggq", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except click.ClickException as error:  # wrong usage is 2, click's other errors 1
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo(file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        raise
    except GGQError as error:
        return _fail(str(error))
    except OSError as error:
        named = isinstance(error.filename, (str, bytes, os.PathLike))
        where = f"{os.fsdecode(error.filename)}: " if named else ""
        return _fail(f"{where}{reason(error)}")
    except MemoryError as error:
        return _fail(f"out of memory: {error}" if str(error) else "out of memory")


def _show_compiling(done: int, total: int) -> None:
    """Say on stderr how far compiling is: a line that changes on a terminal, else one line."""
    text = "compiling kernels for this processor, once"
    if sys.stderr is None:
        return
    if done == 0:
        _tell_unused_kernels()
    # A progress bar puts something else in the place of stderr, which is no place for half lines.
    if isinstance(sys.stderr, io.TextIOWrapper) and sys.stderr.isatty():
        line = f"{text}: {done} of {total}"
        sys.stderr.write(f"\r{line}" if done < total else "\r" + " " * len(line) + "\r")
        sys.stderr.flush()
    elif done == 0:
        click.echo(f"{text} ...", err=True)


def _tell_unused_kernels() -> None:
    """Say why kernels that came with ggq are not used, where they should be."""
    if problem := shipped.problem():
        click.echo(f"ggq: {printable(problem)}: not used", err=True)


def _fail(message: str) -> int:
    click.echo(f"ggq: error: {printable(message, _ERROR_LIMIT)}", err=True)
    return EXIT_ERROR


def _forget_stdout() -> None:
    # The reader is gone (`ggq info x | head`): keep the interpreter's own last flush silent.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
