"""README and CONTRIBUTING stay true: the commands, files and folders that they name exist."""

import re
import sys
from pathlib import Path

import pytest

from ggq.cli import cli

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = ["README.md", "CONTRIBUTING.md"]
OWN_FOLDERS = ("ggq/", "converters/", "runtime/", "models/", "tests/", "benchmarks/", "docs/", ".")


def code(document):
    """Return what stands in backticks, inline or in blocks, line by line."""
    text = (ROOT / document).read_text(encoding="utf-8")
    blocks = re.findall(r"```\w*\n(.*?)```", text, re.DOTALL)
    inline = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    return [line for block in blocks for line in block.splitlines()] + inline


def paths(document):
    words = {word for line in code(document) for word in line.split()}
    text = (ROOT / document).read_text(encoding="utf-8")
    words |= set(re.findall(r"\]\(([^)#:]+)\)", text))
    return {w for w in words if w.startswith(OWN_FOLDERS) and "NAME" not in w and "..." not in w}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_named_files_exist(document):
    named = {p for p in paths(document) if p not in (".", ".venv") and not p.startswith(".venv/")}
    assert named
    missing = [p for p in named if not list(ROOT.glob(p.rstrip(".,;/")))]
    assert missing == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_named_commands_exist(document):
    named = {m for line in code(document) for m in re.findall(r"\bggq ([a-z][a-z-]+)", line)}
    if document == "README.md":
        text = (ROOT / document).read_text(encoding="utf-8")
        table = text.split("| command | does |")[1].split("\n\n")[0]
        rows = re.findall(r"^\| (`[^|]+`) \|", table, re.MULTILINE)
        assert rows
        named |= {name for row in rows for name in re.findall(r"`([a-z-]+)`", row)}
    assert named
    assert sorted(named - set(cli.list_commands(None))) == []


def test_measured_rows_take_the_place_of_those_they_renew():
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        import quality
    finally:
        sys.path.pop(0)
    page = f"Text\n\n{quality.HEADER}| a Q4_K_M, `best` | wiki | 1 | old |\n\nThe end | a.\n"
    rows = ["| a Q4_K_M, `best` | wiki | 2 | new |", "| b Q4_K_M, `good` | wiki | 3 | more |"]
    found = quality.into_page(page, rows)
    assert found == f"Text\n\n{quality.HEADER}{rows[0]}\n{rows[1]}\n\nThe end | a.\n"
    assert quality.into_page(found, rows) == found


def test_plots_are_those_of_the_tables():
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        import plots
    finally:
        sys.path.pop(0)
    for name, text in plots.plots().items():
        found = (ROOT / "docs/pictures" / name).read_text(encoding="utf-8")
        assert found == text, "run benchmarks/plots.py"
        assert text.count("<rect") > 8
