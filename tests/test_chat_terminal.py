"""``ggq chat`` on a real pseudo-terminal: what is typed, pasted, searched, interrupted, resized."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("pty", reason="pseudo-terminals are POSIX")

from terminals import ALT_ENTER, CTRL_C, CTRL_D, CTRL_R, TAB, UP, Terminal

pytestmark = pytest.mark.slow

# The program, with a model that speaks by script and a log of what it is asked.
PROGRAM = """
import json, sys, time
sys.path.insert(0, sys.argv[1])
from toy_model import *
import ggq.runtime.model as m
from ggq import cli
from ggq.runtime.generation.conversation import Conversation
log, scripts, n_ctx, seconds = json.loads(sys.argv[2])
toy = ToyModel([tokens(s) for s in scripts], n_ctx)
toy.template.source += '{# thinks #}'
m.load = lambda path, **options: toy
slow = ToySession.evaluate
ToySession.evaluate = lambda self, ids: (time.sleep(seconds), slow(self, ids))[1]
answer = Conversation._answer
def told(self, messages, *rest):
    with open(log, "a") as file:
        file.write(json.dumps(self.sent(messages)) + chr(10))
    return answer(self, messages, *rest)
Conversation._answer = told
sys.exit(cli.main(["chat", *sys.argv[3:]]))
"""


class Chat(Terminal):
    """The chat with a model that speaks by script, and what it was asked."""

    def __init__(self, folder, scripts, n_ctx=4000, seconds=0.0, options=(), **env):
        self.log = folder / "asked.jsonl"
        model = folder / "toy.gguf"
        model.touch()
        given = json.dumps([str(self.log), list(scripts), n_ctx, seconds])
        here = str(Path(__file__).parent)
        program = [sys.executable, "-c", PROGRAM, here, given, str(model), *options]
        own = {"GGQ_CACHE": str(folder), "HF_HUB_CACHE": str(folder)}
        super().__init__(program, folder, **{**own, **env})

    def asked(self):
        return [json.loads(line)[-1]["content"] for line in self.log.read_text().splitlines()]


def test_one_answer_into_a_pipe_loads_no_terminal(tmp_path):
    (tmp_path / "toy.gguf").touch()
    watched = "{'prompt_toolkit', 'rich', 'huggingface_hub', 'ggq.runtime.formats', 'numba'}"
    code = PROGRAM.replace("sys.exit(", "code = (") + f"print(sorted({watched} & set(sys.modules)))"
    code = code.replace("toy.template.source += '{# thinks #}'", "")
    given = json.dumps([str(tmp_path / "log"), ["ok"], 1000, 0])
    here, model = str(Path(__file__).parent), str(tmp_path / "toy.gguf")
    done = subprocess.run(
        [sys.executable, "-c", code, here, given, model, "-p", "Hi"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert done.stdout == "ok\n[]\n"


def test_pastes_lines_history_and_completion(tmp_path):
    (tmp_path / "notes.txt").write_text("the notes")
    with Chat(tmp_path, ["ok"] * 9) as t:
        t.paste("one\n/bye\n\nfour")
        t.ask()
        t.ask(b"first", ALT_ENTER, b"second\\", b"\r", b"third")
        t.ask(b'"""x', b"\r", b'y"""')
        t.type(b"/fi", TAB, b"no", TAB, b"\r")
        t.wait_for(b"goes with the next message")
        t.ask(b"what is in it?")
        t.type(b"half a mess", CTRL_C)
        t.wait_for(b"Ctrl-D or /bye leaves")
        t.ask(CTRL_R, b"thi", b"\r")
        t.ask(b"plain")
        t.ask(UP, b"!")
        t.type(CTRL_D)
        assert t.exit_code() == 0
        asked = t.asked()
    lines = "first\nsecond\nthird"
    assert asked[:3] == ["one\n/bye\n\nfour", lines, "x\ny"]
    assert asked[3] == "notes.txt:\n```\nthe notes\n```\n\nwhat is in it?"
    assert asked[4] == lines
    assert asked[5:] == ["plain", "plain!"]
    history = tmp_path / "chat-history"
    assert history.stat().st_mode & 0o777 == 0o600
    with Chat(tmp_path, ["ok"]) as t:  # another session remembers
        t.ask(UP)
        assert t.asked()[-1] == "plain!"


def test_ctrl_c_stops_the_answer_and_ctrl_d_leaves(tmp_path):
    with Chat(tmp_path, ["z " * 2000, "done"], seconds=0.01) as t:
        t.type(b"go", b"\r")
        t.wait_for(b"z z z z")
        t.resize(50, 12)
        t.wait_for(b"z z z z z z")
        t.type(CTRL_C)
        t.wait_for(b"(stopped)")
        t.wait_for(b">>>")
        t.ask(b"again")
        t.type(CTRL_D)
        assert t.exit_code() == 0


# What is held up until Ctrl-C has been typed: the terminal still raw; prompt_toolkit ends; the
# answer begins.
EARLY = (
    "prompt_toolkit.input.vt100.raw_mode.__exit__",
    "prompt_toolkit.application.Application.cancel_and_wait_for_background_tasks",
    "ggq.runtime.chat.rendered.Rendered.begin",
)
HELD_UP = """
from pathlib import Path
from pkgutil import resolve_name
place, _, name = {place!r}.rpartition(".")
owner = resolve_name(place)
whole = getattr(owner, name)
def held_up(*given):
    print("<HERE>", file=sys.stderr, flush=True)
    while not Path("typed").exists():
        time.sleep(0.01)
    return whole(*given)
setattr(owner, name, held_up)
"""


@pytest.mark.parametrize("place", EARLY)
def test_ctrl_c_right_after_enter_is_not_lost(tmp_path, monkeypatch, place):
    code = PROGRAM.replace("sys.exit(", HELD_UP.format(place=place) + "sys.exit(")
    monkeypatch.setattr(sys.modules[__name__], "PROGRAM", code)
    with Chat(tmp_path, ["ok"] * 2) as t:
        t.type(b"go", b"\r")
        t.wait_for(b"<HERE>")
        t.type(CTRL_C)
        (tmp_path / "typed").touch()
        assert "ok" not in t.wait_for(b"(stopped)")
        t.wait_for(b">>>")
        t.ask(b"again")
    last = json.loads(t.log.read_text().splitlines()[-1])
    assert [m["content"] for m in last] == ["again"]  # what was stopped was taken back


def test_thoughts_are_folded_and_can_be_looked_at(tmp_path):
    script = "<think>\nhm, hm\n</think>\n\n**Yes** and <no>."
    with Chat(tmp_path, [script] * 3) as t:
        shown = t.ask(b"hi")
        assert "[thought for" in shown
        assert "\x1b[1mYes\x1b[0m and <no>." in shown
        assert "</think>" not in shown
        t.type(b"/thoughts", b"\r")
        t.wait_for(b"hm, hm")
        t.type(b"/thoughts hide", b"\r")
        t.wait_for(b">>>")
        assert "thought for" not in t.ask(b"again")
    assert "reasoning_content" in json.loads(t.log.read_text().splitlines()[1])[1]


@pytest.mark.parametrize("how", [{"options": ["--plain"]}, {"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_plain_is_what_the_model_writes(tmp_path, how):
    with Chat(tmp_path, ["# A **b**\n"], **how) as t:
        assert "# A **b**\r\n" in t.ask(b"hi")


@pytest.mark.parametrize(
    ("key", "told"), [(b"d", b"forgotten"), (b"s", b"summarized"), (b"n", b"/drop")]
)
def test_a_full_context_is_no_dead_end(tmp_path, key, told):
    with Chat(tmp_path, ["b" * 100, "sum", "c" * 40], n_ctx=1000) as t:
        t.ask(b"x" * 300)
        t.ask(b"y" * 300)
        t.type(b"z" * 300, b"\r")
        t.wait_for(b"the context is full")
        t.wait_for(b"either?")
        t.type(key, b"\r")
        t.wait_for(told)
        if key != b"n":
            t.wait_for(b"[prompt ")
            last = json.loads(t.log.read_text().splitlines()[-1])
            assert last[-1]["content"] == "z" * 300
            assert "x" * 300 not in json.dumps(last)
            assert (last[0]["role"] == "system") == (key == b"s")
        t.wait_for(b">>>")
        t.type(b"/bye", b"\r")
        assert t.exit_code() == 0
