"""``ggq chat`` and ``ggq run`` on a model that speaks by script: one shot, dialogue, Ctrl-C."""

import io
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from toy_model import HELLO, ToyModel, tokens

from ggq import cli, hub
from ggq.commands import _chatting
from ggq.runtime import model as model_module
from ggq.runtime.chat import screen
from ggq.runtime.chat.screen import Ended, Printer, visible
from ggq.runtime.chat.settings import Settings
from ggq.runtime.chat.terminal import Chat
from ggq.runtime.generation.conversation import Conversation


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def toy(monkeypatch, tmp_path):
    """Put a scripted model behind ``ggq.load``; returns it and what load was called with."""
    model = ToyModel([tokens(HELLO, " A"), tokens("B")])
    model.calls = []

    def load(path, **options):
        model.calls.append((path, options))
        return model

    monkeypatch.setattr(model_module, "load", load)
    monkeypatch.setenv("GGQ_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "toy.gguf"
    path.touch()
    model.path = str(path)
    return model


def stdin(monkeypatch, text, terminal=False):
    stream = io.TextIOWrapper(io.BytesIO(text.encode()), encoding="utf-8")
    stream.isatty = lambda: terminal
    monkeypatch.setattr(sys, "stdin", stream)


def test_one_shot(toy, capsys):
    assert cli.main(["chat", toy.path, "-p", "Hi", "--temp", "0", "-c", "99", "-t", "3"]) == 0
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("Hello A\n", "")
    path, options = toy.calls[0]
    assert path == Path(toy.path)
    kinds = {"cache_type": "f16", "device": "cpu", "device_weights": "auto"}
    kinds |= {"draft": None, "draft_max": 15, "cache_disk": None, "lora": (), "mmproj": None}
    assert options == {"n_ctx": 99, "threads": 3, **kinds}


def test_keys_and_values_have_types_of_their_own(toy):
    said = ["chat", toy.path, "-p", "Hi", "--cache-type", "f32", "--cache-type-v", "q8_0"]
    assert cli.main(said) == 0
    assert toy.calls[0][1]["cache_type"] == ("f32", "q8_0")
    assert cli.main([*said, "-ctk", "q8_0"]) == 0
    assert toy.calls[1][1]["cache_type"] == "q8_0"
    assert cli.main([*said, "-ctk", "q5_0"]) == 2


def test_a_prompt_and_what_is_piped_in_go_together(toy, capsys, monkeypatch):
    def told():
        return toy.tokenizer.decode(toy.last_session.ids)

    for arguments in (["chat", "-p", "Sum up"], ["run", "-p", "Sum up"], ["run", "Sum", "up"]):
        stdin(monkeypatch, "text\nof a file\n")
        assert cli.main([arguments[0], toy.path, *arguments[1:]]) == 0
        assert "user\nSum up\n\ntext\nof a file\n<|im_end|>" in told()
    stdin(monkeypatch, "")  # as from /dev/null
    assert cli.main(["run", toy.path, "Hi", "you"]) == 0
    assert "user\nHi you<|im_end|>" in told()
    stdin(monkeypatch, "unread", terminal=True)
    assert cli.main(["run", toy.path, "Hi"]) == 0
    assert "user\nHi<|im_end|>" in told()
    assert capsys.readouterr().out == "Hello A\n" * 5


def test_a_pipe_that_stays_silent_is_told(toy, capsys, monkeypatch):
    monkeypatch.setattr(_chatting, "_PATIENCE", 0.0)

    class Silent(io.BytesIO):
        def read(self, *_):
            deadline = time.monotonic() + 20
            while "piped in" not in capsys.readouterr().err:
                assert time.monotonic() < deadline
            return b""

    stream = io.TextIOWrapper(Silent())
    stream.isatty = lambda: False
    monkeypatch.setattr(sys, "stdin", stream)
    assert cli.main(["run", toy.path, "Hi"]) == 0


def test_raw_text_is_continued_without_a_template(toy, capsys):
    assert cli.main(["run", toy.path, "--raw", "Once <|im_end|>", "-n", "3"]) == 0
    assert toy.last_session.ids[:15] == tokens("Once <|im_end|>")


@pytest.mark.parametrize("arguments", [["chat"], ["chat", "-p", "-"], ["run"]])
def test_piped_text_is_one_shot(toy, capsys, monkeypatch, arguments):
    stdin(monkeypatch, "Grüße\n")
    assert cli.main([arguments[0], toy.path, *arguments[1:]]) == 0
    assert capsys.readouterr().out == "Hello A\n"
    assert "user\nGrüße" in toy.tokenizer.decode(toy.last_session.ids)


def test_what_the_terminal_cannot_show_is_a_question_mark(toy, monkeypatch):
    toy._scripts[0] = tokens("é")
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    assert cli.main(["run", toy.path, "Hi"]) == 0
    assert raw.getvalue() == b"?\n"


def test_options_reach_the_model(toy, capsys):
    arguments = ["-p", "Hi", "-s", "Sys", "-n", "2", "--stop", "zz", "--stats", "--verbose"]
    assert cli.main(["chat", toy.path, *arguments, "--top-k", "7", "--logit-bias", "65=-1"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "Hello \n"
    assert "top_k = 7  (set)" in captured.err
    assert "temperature = 0.8\n" in captured.err
    assert "[prompt " in captured.err
    assert "gen 2 tok" in captured.err
    assert "system\nSys<|im_end|>" in toy.tokenizer.decode(toy.last_session.ids)


def test_flag_over_file_over_default(toy, capsys, monkeypatch):
    toy.gguf.metadata = {"general.sampling.temp": 0.5, "general.sampling.top_k": 3}
    monkeypatch.setenv("GGQ_CHAT_TOP_K", "9")
    assert cli.main(["chat", toy.path, "-p", "Hi", "-v"]) == 0
    shown = capsys.readouterr().err
    assert "temperature = 0.5  (general.sampling.temp)" in shown
    assert "top_k = 9  (set)" in shown


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["-p", "x", "--top-p", "7"], 2, "top_p: 7.0 is not a number from 0 to 1"),
        (["-p", "x", "--logit-bias", "a=b"], 1, "expected ID=BIAS"),
        (["-p", " "], 1, "the prompt is empty"),
        (["-p", "x" * 2000], 1, "more than the context of 1000"),
    ],
)
def test_errors_are_one_line(toy, capsys, arguments, code, message):
    assert cli.main(["chat", toy.path, *arguments]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err


def test_default_model_asks_on_a_terminal(toy, capsys, monkeypatch):
    pulled = []

    def pull(name, report, progress):
        pulled.append(name)
        report("fetching ...")
        return Path(toy.path)

    monkeypatch.setattr(hub, "pull", pull)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    stdin(monkeypatch, "n\n", terminal=True)
    assert cli.main(["chat", "-p", "Hi"]) == 1
    assert "ggq pull smollm2-135m" in capsys.readouterr().err
    assert pulled == []
    stdin(monkeypatch, "y\n", terminal=True)
    assert cli.main(["chat", "-p", "Hi"]) == 0
    assert cli.main(["chat", "-p", "Hi", "--yes"]) == 0
    stdin(monkeypatch, "Hi")  # no terminal: no question
    assert cli.main(["chat"]) == 0
    captured = capsys.readouterr()
    assert pulled == ["smollm2-135m"] * 3
    assert captured.out.endswith("Hello A\n")
    assert "fetching" in captured.err


def dialogue(model, lines, **options):
    """Type ``lines`` (exceptions are raised instead of read); return what was shown."""
    out, err = Terminal(), io.StringIO()
    typed = iter(lines)

    def read(prompt):
        line = next(typed, EOFError())
        if isinstance(line, BaseException):
            raise line
        return line

    conversation = Conversation(model.session(), model.tokenizer, model.template)
    settings = Settings({"temperature": 0.0}, {})
    host = SimpleNamespace(info=lambda: ["model: toy"], models=lambda: ["one", "two"])
    Chat(conversation, settings, Printer(out, err), read, host, **options).loop()
    return out.getvalue(), err.getvalue(), conversation


def test_dialogue_of_two_turns_and_regeneration(toy):
    out, err, conversation = dialogue(toy, ["Hi", "", "Yo", "/regen"])
    assert out == "Hello A\nB\nB\n"
    assert err.count("[prompt ") == 3
    assert [m["content"] for m in conversation.messages] == ["Hi", "Hello A", "Yo", "B"]


def test_second_turn_reports_only_new_tokens(toy):
    _, err, _ = dialogue(toy, ["Hi", "Yo"])
    first, second = [int(line.split()[1]) for line in err.splitlines() if line.startswith("[")]
    assert (first, second) == (21, 2 + 21)


def test_commands(toy, tmp_path):
    path = tmp_path / "c.json"
    lines = ["/system Be kind", "/system", "Hi", f"/save {path}", "/clear", f"/load {path}"]
    lines += ["/set", "/set temp 0.3", "/set", "/set temp default", "/set max_tokens 5", "/help"]
    out, err, conversation = dialogue(toy, [*lines, "/exit", "never read"])
    assert out == "Hello A\n"
    assert conversation.system == "Be kind"
    assert len(conversation.messages) == 3
    assert "Be kind\n" in err
    assert "temperature = 0.0  (set)" in err
    assert "temperature = 0.3  (set)" in err
    names = "bye clear continue copy ctx drop file help info load model regen save set summarize"
    for name in f"{names} system think thoughts undo".split():
        assert f"/{name} " in err


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("/nonsense", "unknown command /nonsense"),
        ("/set top_p 9", "top_p: 9 is not a number"),
        ("/set nonsense 9", "no setting 'nonsense'"),
        ("/set top_p", "usage: /set"),
        ("/set n x", "max_tokens: x"),
        ("/regen", "no answer"),
        ("/save", "usage: /save FILE"),
        ("/load /no/such", "No such file"),
        ("x" * 3000, "more than the context of 1000"),
        ("/undo", "nothing to undo"),
        ("/copy", "no answer to copy"),
        ("/continue", "no answer to go on with"),
        ("/file /no/such", "/no/such: No such file"),
        ("/ctx x", "usage: /ctx TOKENS"),
        ("/think maybe", "usage: /think on"),
        ("/sistem x", "did you mean system?"),
    ],
)
def test_errors_do_not_end_the_dialogue(toy, line, message):
    out, err, conversation = dialogue(toy, [line, "Hi"])
    assert message in err
    assert out == "Hello A\n"
    assert len(conversation.messages) == 2


def test_several_lines_between_quotes(toy):
    _, _, conversation = dialogue(toy, ['"""', "one", "", 'two"""', '"""x"""'])
    assert [m["content"] for m in conversation.messages[::2]] == ["one\n\ntwo", "x"]


def test_interrupts_stop_the_answer_not_the_program(toy, monkeypatch):
    original = screen.visible
    shown = []

    def interrupting(text):
        shown.append(text)
        if len(shown) == 2:
            raise KeyboardInterrupt
        return original(text)

    monkeypatch.setattr(screen, "visible", interrupting)
    out, err, conversation = dialogue(toy, [KeyboardInterrupt(), "Hi", "Yo"])
    assert "(Ctrl-D or /bye leaves)" in err
    assert "(stopped)" in err
    assert out == "Hello\nB\n"
    assert [m["content"] for m in conversation.messages][-1] == "B"


def test_terminal_sees_no_control_characters():
    assert visible("a\x1b[31m\n\tb\r\x9b ü👩‍💻") == "a\\x1b[31m\n\tb\\x9b ü👩‍💻"
    plain = io.StringIO()
    Printer(plain, plain).stream(iter([]))
    assert plain.getvalue() == "\n"


def test_one_shot_interrupt_exits_130(toy, monkeypatch):
    def stream(self, pieces):
        pieces.close()
        return Ended(interrupted=True)

    monkeypatch.setattr(Printer, "stream", stream)
    assert cli.main(["chat", toy.path, "-p", "Hi"]) == 130


def test_no_prompt_on_a_terminal_is_wrong_usage_of_run(toy, monkeypatch):
    stdin(monkeypatch, "", terminal=True)
    assert cli.main(["run", toy.path]) == 2
    assert _chatting._prompt(None, dialogue=True) is None
