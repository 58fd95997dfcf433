"""Write docs/commands.md, and the options in docs/serve.md, from the commands' own help.

tests/test_docs.py and tests/test_serve_command.py fail until it is done.
"""

from pathlib import Path

from click.testing import CliRunner

from ggq.cli import cli

PAGE = Path(__file__).resolve().parents[2] / "docs/commands.md"
INTRODUCTION = """# Commands

`ggq COMMAND --help`, all on one page (`python tests/tools/commands_page.py` writes it).

Every option can also come from the environment, as `GGQ_`, the command and the option in capitals:
`GGQ_SERVE_PORT=9000`, `GGQ_SET_METADATA_FORCE=1`. Values of repeatable options are separated by
spaces.
"""


def help_of(name: str) -> str:
    """Return a command's help, 100 columns wide."""
    found = CliRunner(env={"COLUMNS": "100"}).invoke(
        cli, [name, "--help"], prog_name="ggq", terminal_width=100, max_content_width=100
    )
    assert found.exit_code == 0, found.output
    return found.output.rstrip()


def page() -> str:
    """Return the page's text."""
    parts = [f"## {name}\n\n```\n{help_of(name)}\n```\n" for name in cli.list_commands(None)]
    return "\n".join([INTRODUCTION, *parts])


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    serve = PAGE.parent / "serve.md"
    before, mark, rest = serve.read_text(encoding="utf-8").partition(
        "<!-- ggq serve --help -->\n```\n"
    )
    text = before + mark + help_of("serve") + "\n```" + rest.partition("\n```")[2]
    serve.write_text(text, encoding="utf-8")
