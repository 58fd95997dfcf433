"""What long work tells on a stderr that is no terminal, and what short work does not."""

import re
import sys
from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from ggufmaker import make_tiny_llama

from ggq import progress as _progress
from ggq.cli import cli


@pytest.fixture
def clock(monkeypatch):
    """Return a clock that stands still until it is set."""
    now = [0.0]
    monkeypatch.setattr(_progress.time, "monotonic", lambda: now[0])
    return now


def test_a_line_now_and_then_with_the_time_left(clock, capsys):
    with _progress.progress_bar(False) as progress:
        for second in range(101):
            clock[0] = float(second)
            progress(second * 1000, 100_000, f"tensor {second}")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == " 10 %, 1:30 left: tensor 10"
    assert [line.split()[0] for line in lines] == [str(n) for n in range(10, 101, 10)]


def test_lines_are_no_more_than_percents_and_start_again_with_other_work(clock, capsys):
    with _progress.progress_bar(False) as progress:
        for second in range(0, 8001, 20):
            clock[0] = float(second)
            progress(second, 400_000, "")
        clock[0] = 9000.0
        progress(0, 100, "more\n")
        clock[0] = 9060.0
        progress(1, 100, "more\n")
    lines = capsys.readouterr().err.splitlines()
    assert lines[:2] == ["  1 %, 110:00:00 left", "  2 %, 108:53:20 left"]
    assert lines[2:] == ["  1 %, 1:39:00 left: more\\n"]


def test_short_and_quiet_work_is_silent(clock, capsys):
    with _progress.progress_bar(False) as progress:
        for done in range(11):
            clock[0] = 0.9 * done
            progress(done, 10, "x")
    with _progress.progress_bar(True) as progress:
        assert progress is None
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("command", ["bench", "imatrix", "eval"])
def test_commands_tell_without_a_terminal(command, tmp_path, monkeypatch):
    monkeypatch.setattr(_progress, "EVERY", 0.0)
    path = make_tiny_llama(tmp_path / "t.gguf", vocab="bpe")
    text = tmp_path / "text.txt"
    text.write_text("the end of the text " * 300)
    given = {
        "bench": [path, "-p", "4", "-n", "2", "-r", "3"],
        "imatrix": [path, "--text", text, "-c", "32", "-o", tmp_path / "i.gguf", "--chunks", "8"],
        "eval": [path, "--text", text, "-c", "32", "--chunks", "8"],
    }
    if command == "imatrix":
        given["imatrix"] += ["--backend", "reference"]
    arguments = [command, *map(str, given[command])]
    told = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert told.exit_code == 0
    assert re.search(r"^ *\d+ %, \d+:\d\d left", told.stderr, re.MULTILINE)
    assert " left" not in CliRunner().invoke(cli, [*arguments, "-q", *_again(command)]).stderr


def _again(command):
    return ["--force"] if command == "imatrix" else []


class Kernel:
    """What IPython gives in a notebook."""

    kernel = object()


def notebook(monkeypatch):
    """Make this a notebook; return the bars that are drawn."""
    drawn = []

    class Bar:
        def __init__(self, total, **_):
            self.total, self.n, self.states = total, 0, []
            drawn.append(self.states)

        def set_description(self, text):
            self.states.append((self.n, self.total, text))

        def close(self):
            self.states.append("closed")

    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=Kernel))
    monkeypatch.setattr(_progress, "_tqdm", lambda total: Bar(total))
    return drawn


def test_a_bar_in_a_notebook(monkeypatch, capsys):
    drawn = notebook(monkeypatch)
    with _progress.progress_bar(False) as progress:
        progress(1, 4, "a")
        progress(4, 4, "b")
    _progress.show_compiling(0, 2)
    _progress.show_compiling(2, 2)
    text = "compiling kernels for this processor, o…"
    assert drawn == [
        [(1, 4, "a"), (4, 4, "b"), "closed"],
        [(0, 2, text), (2, 2, text), "closed"],
    ]
    assert capsys.readouterr().err == ""


def test_the_notebooks_bar_is_tqdms(capsys):
    pytest.importorskip("tqdm")
    bar = _progress._Cell()
    bar(1, 4, "layer 1")
    bar.close()
    assert "layer 1:  25%" in capsys.readouterr().err
