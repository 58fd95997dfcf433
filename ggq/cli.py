"""The ``ggq`` command: finds commands by file name, loads one when asked, ends in exit codes.

It knows nothing about what any command does: a file ``ggq/commands/set_metadata.py`` with a click
object named ``command`` is ``ggq set-metadata``; its docstring's first line is the short help.
``SECTION`` there says where the list of commands has it, ``ALIASES`` how it may be called besides.
"""

import ast
import gc
import importlib
import io
import os
import pkgutil
import sys
from importlib.util import find_spec
from typing import NamedTuple

import click

import ggq
import ggq.commands
from ggq import machine_code
from ggq.errors import GGQError, known_names, naming_flags, printable, reason
from ggq.progress import show_compiling

EXIT_ERROR, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130
_ERROR_LIMIT = 2000  # characters of one message; names inside are already cut by errors.printable


_SECTIONS = ("Run", "Convert", "Measure", "Files")  # in this order, before others


class About(NamedTuple):
    """What a command's source says of it: short help, section, other names."""

    help: str
    section: str
    aliases: tuple[str, ...]


def about(module_name: str) -> About:
    """Read what a command's module says of itself from its source, without importing it."""
    spec = find_spec(module_name)
    get_source = getattr(spec and spec.loader, "get_source", None)
    tree = ast.parse((get_source(module_name) if get_source else None) or "")
    said = {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and node.targets[0].id in ("SECTION", "ALIASES")
    }
    first = (ast.get_docstring(tree) or "").partition("\n")[0].rstrip(".")
    return About(first, said.get("SECTION", "Other"), said.get("ALIASES", ()))


def _module(command: str) -> str:
    return f"ggq.commands.{command.replace('-', '_')}"


class LazyGroup(click.Group):
    """A click group whose commands are the modules of ``ggq.commands``, imported one at a time."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the command names: the module names with dashes, sorted."""
        names = (m.name for m in pkgutil.iter_modules(ggq.commands.__path__))
        return sorted(name.replace("_", "-") for name in names if not name.startswith("_"))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command's module and return its ``command``; None for an unknown name."""
        known = self.list_commands(ctx)
        if cmd_name not in known:
            named = (name for name in known if cmd_name in about(_module(name)).aliases)
            cmd_name = next(named, "")
            if not cmd_name:
                return None
        command = importlib.import_module(_module(cmd_name)).command
        command.name = cmd_name
        if ctx is not None and ctx.resilient_parsing:  # a shell asks what may follow
            importlib.import_module("ggq.commands._completing").complete(cmd_name, command)
        for option in command.params:
            if isinstance(option, click.Option) and not option.envvar:
                flag = max(option.opts, key=len).lstrip("-")  # what users see, not our own name
                option.envvar = f"GGQ_{cmd_name}_{flag}".replace("-", "_").upper()
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that the first argument names; where there is none, say what is near."""
        name = args[0]
        if self.get_command(ctx, name) is None and not ctx.resilient_parsing:
            if os.path.exists(name) or name.lower().endswith(".gguf"):
                ctx.fail(
                    f"{printable(name)} is no command: ggq chat {printable(name)} talks with it"
                )
            known = self.list_commands(ctx)
            names = [*known, *(a for n in known for a in about(_module(n)).aliases)]
            near = known_names(name, names)
            how = near if near.startswith("did you mean") else "ggq --help lists them"
            ctx.fail(f"no command {printable(name)}: {how}")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> None:
        """Run the command, drop its return value: only errors and ``ctx.exit`` set exit codes."""
        super().invoke(ctx)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the tables of commands from their sources: none is imported for ``--help``."""
        sections: dict[str, list[tuple[str, str]]] = {name: [] for name in _SECTIONS}
        for name in self.list_commands(ctx):
            found = about(_module(name))
            rows = sections.setdefault(found.section, [])
            rows.append((", ".join([name, *found.aliases]), found.help))
        if not any(sections.values()):
            return
        width = max(len(names) for rows in sections.values() for names, _ in rows)
        for section, rows in sections.items():
            if rows:
                with formatter.section(section):
                    formatter.write_dl([(names.ljust(width), told) for names, told in rows])


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
    machine_code.set_listener(show_compiling)
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


def _fail(message: str) -> int:
    click.echo(f"ggq: error: {printable(message, _ERROR_LIMIT)}", err=True)
    return EXIT_ERROR


def _forget_stdout() -> None:
    # The reader is gone (`ggq info x | head`): keep the interpreter's own last flush silent.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
