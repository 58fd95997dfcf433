"""Write docs/commands.md from the commands' own help; tests/test_docs.py fails until it is done."""

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


def page() -> str:
    """Return the page's text."""
    parts = [INTRODUCTION]
    for name in cli.list_commands(None):
        found = CliRunner(env={"COLUMNS": "100"}).invoke(
            cli, [name, "--help"], prog_name="ggq", terminal_width=100, max_content_width=100
        )
        assert found.exit_code == 0, found.output
        parts.append(f"## {name}\n\n```\n{found.output.rstrip()}\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
