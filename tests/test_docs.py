"""The documentation stays true: its Python and its marked commands run, the others parse.

Each page's Python blocks run one after the other in a folder with a tiny ``model.gguf``, a
Hugging Face folder ``my-model`` and ``text.txt``; so do commands in blocks marked ``sh run``. A
server answers at the address that the pages name.
"""

import os
import re
import shlex
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from ggufmaker import make_tiny_llama
from hfmaker import make_hf

import ggq
from ggq.cli import cli

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(p.name for p in (ROOT / "docs").glob("*.md"))
RUNNABLE = ("api.md", "convert.md", "extending.md", "quickstart.md", "serve.md")
EXTRAS = {"serve.md": ("uvicorn", "openai"), "extending.md": ("starlette", "msgspec")}
ADDRESS = "http://127.0.0.1:8080"


def blocks(page, kind):
    """Return the fenced blocks of a kind."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    fences = re.findall(r"^```([^\n]*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [body for found, body in fences if found.strip() == kind]


def commands(page, kind):
    """Return the ``ggq`` lines of blocks of a kind, split into words."""
    lines = "".join(blocks(page, kind)).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("ggq ")]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder as the pages suppose it, being the current one."""
    make_tiny_llama(tmp_path / "model.gguf", vocab="bpe", n_ctx=512)
    make_hf(tmp_path / "my-model", hidden_size=64, intermediate_size=256)
    (tmp_path / "text.txt").write_text("The quick brown fox jumps over the lazy dog. " * 60)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("page", RUNNABLE)
def test_python_runs(page, folder):
    for extra in EXTRAS.get(page, ()):
        pytest.importorskip(extra)
    code = "\n".join(blocks(page, "python"))
    if ADDRESS not in code:
        exec(compile(code, page, "exec"), {"__name__": "page"})
        return
    from servers import listening

    with ggq.load("model.gguf", n_ctx=2048, threads=1) as model, listening(model) as (url, _):
        exec(compile(code.replace(ADDRESS, url), page, "exec"), {"__name__": "page"})


@pytest.mark.slow
@pytest.mark.parametrize("page", [p for p in RUNNABLE if commands(p, "sh run")])
def test_marked_commands_run(page, folder):
    found = commands(page, "sh run")
    assert len(found) > 1
    for words in found:
        done = CliRunner().invoke(cli, words, prog_name="ggq")
        assert done.exit_code == 0, (words, done.output, done.exception)


@pytest.mark.parametrize("page", [p for p in PAGES if commands(p, "sh") or commands(p, "")])
def test_other_commands_parse(page):
    for name, *words in commands(page, "sh") + commands(page, ""):
        known = cli.get_command(None, name)
        assert known, f"{page}: ggq {name}"
        options = {o for p in known.params for o in (*p.opts, *p.secondary_opts)}
        named = {word.split("=")[0] for word in words if word.startswith("-") and word != "-"}
        assert sorted(named - options - {"-h", "--help"}) == [], f"{page}: ggq {name}"


@pytest.mark.parametrize("page", [*PAGES, "../README.md", "../CONTRIBUTING.md"])
def test_links_lead_somewhere(page):
    path = ROOT / "docs" / page
    links = re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text(encoding="utf-8"))
    assert [link for link in links if not (path.parent / link).exists()] == []


def test_the_page_of_commands_is_up_to_date(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "tests/tools")
    import commands_page

    written = commands_page.PAGE.read_text(encoding="utf-8")
    assert written == commands_page.page(), "python tests/tools/commands_page.py"


# -- options from the environment, completion


@pytest.mark.parametrize("name", cli.list_commands(None))
def test_every_option_comes_from_the_environment_too(name, monkeypatch):
    command = cli.get_command(None, name)
    root = click.Context(cli, info_name="ggq", auto_envvar_prefix="GGQ")
    ctx = click.Context(command, info_name=name, parent=root)
    options = [p for p in command.params if isinstance(p, click.Option)]
    for option in options:
        flag = max(option.opts, key=len).lstrip("-")
        variable = f"GGQ_{name}_{flag}".replace("-", "_").upper()
        monkeypatch.setenv(variable, "7")
        assert option.value_from_envvar(ctx) is not None, variable


def test_an_option_from_the_environment_counts(folder):
    runner = CliRunner(env={"GGQ_INFO_JSON": "1"})
    done = runner.invoke(cli, ["info", "model.gguf"])
    assert done.output.startswith("{")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell, monkeypatch):
    from click.shell_completion import BashComplete

    monkeypatch.setattr(BashComplete, "_check_version", staticmethod(lambda: None))
    done = CliRunner().invoke(cli, ["completion", shell], prog_name="ggq")
    assert done.exit_code == 0
    assert "_GGQ_COMPLETE" in done.output


@pytest.mark.skipif(os.name == "nt", reason="click completes in Unix shells")
@pytest.mark.parametrize(
    ("words", "expected"),
    [("ggq ser", "serve"), ("ggq serve --par", "--parallel"), ("ggq convert --quality b", "best")],
)
def test_what_the_tab_key_finds(words, expected):
    import subprocess

    env = {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
    done = subprocess.run(
        [sys.executable, "-m", "ggq"],
        env={**os.environ, **env, "_GGQ_COMPLETE": "bash_complete"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"plain,{expected}" in done.stdout.splitlines(), done.stderr
