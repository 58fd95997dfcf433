"""Parts of the chat that need no terminal: completion, the clipboard, changes of the model."""

import base64
import io
import os
import stat
import sys

import pytest
from toy_model import HELLO, ToyModel, tokens

from ggq.commands import chat
from ggq.commands._hosts import LocalHost
from ggq.errors import UsageError
from ggq.runtime import model as model_module
from ggq.runtime.chat.clipboard import copy
from ggq.runtime.chat.completing import Completer
from ggq.runtime.chat.screen import Printer
from ggq.runtime.chat.settings import Settings
from ggq.runtime.chat.slash import Commands
from ggq.runtime.sampling import SamplingParams


@pytest.fixture
def offers(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a folder").mkdir()
    (tmp_path / "a folder" / "notes.txt").touch()
    (tmp_path / "a.txt").touch()
    (tmp_path / ".hidden").touch()
    words = {"[NAME]": lambda: ["qwen3-4b", "qwen3-8b"], "[SETTING": lambda: ["top_k", "top_p"]}
    completer = Completer(Commands().usages(), words)

    def complete(text):
        found = completer.offers(text)
        return [text[: len(text) - offer.length] + offer.text for offer in found]

    return complete


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("/th", ["/think ", "/thoughts "]),
        ("/by", ["/bye"]),
        ("/model q", ["/model qwen3-4b", "/model qwen3-8b"]),
        ("/model qwen3-8", ["/model qwen3-8b"]),
        ("/set top_", ["/set top_k", "/set top_p"]),
        ("/set top_k 4", []),
        ("/file ", ["/file a folder/", "/file a.txt"]),
        ("/file a folder/", ["/file a folder/notes.txt"]),
        ("/load .h", ["/load .hidden"]),
        ("/file no/such/", []),
        ("/nonsense x", []),
        ("text", []),
        ("/th\n/th", []),
    ],
)
def test_completion(offers, typed, completed):
    assert offers(typed) == completed


@pytest.mark.skipif(sys.platform != "linux", reason="programs of Linux desktops")
def test_copy_uses_the_systems_program_or_asks_the_terminal(tmp_path, monkeypatch):
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    terminal = io.StringIO()
    assert "OSC 52" in copy("größe", terminal)
    encoded = base64.b64encode("größe".encode()).decode()
    assert terminal.getvalue() == f"\x1b]52;c;{encoded}\x07"
    program = tmp_path / "xclip"
    program.write_text(f'#!/bin/sh\ncat > "{tmp_path}/copied"\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("DISPLAY", ":0")
    assert copy("größe", terminal) == "with xclip"
    assert (tmp_path / "copied").read_text(encoding="utf-8") == "größe"


@pytest.fixture
def host(tmp_path, monkeypatch):
    """A host of scripted models; ``opened`` and ``closed`` say which."""
    monkeypatch.setenv("GGQ_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    options = chat.command.make_context("chat", [], help_option_names=["-h", "--help"]).params
    found = LocalHost(options, Settings(), Printer(io.StringIO(), io.StringIO()))
    found.opened, found.closed = [], []

    def load(path, n_ctx, **_):
        if path.name == "bad.gguf":
            raise UsageError("bad.gguf: is bad")
        model = ToyModel([tokens(path.stem), tokens(HELLO)], n_ctx or 1000)
        found.opened.append(path.name)
        model.close = lambda: found.closed.append(path.name)
        return model

    monkeypatch.setattr(model_module, "load", load)
    for name in ("one.gguf", "two.gguf", "bad.gguf"):
        (tmp_path / name).touch()
    return found


def test_another_model_goes_on_with_the_same_messages(host):
    greedy = SamplingParams(temperature=0)
    talk = host.open("one.gguf")
    assert "".join(p.text for p in talk.say("Hi", greedy)) == "one"
    talk.summary = "earlier"
    other = host.change("two.gguf", None)
    assert (other.messages, other.summary) == (talk.messages, "earlier")
    assert (host.opened, host.closed) == (["one.gguf", "two.gguf"], ["one.gguf"])
    with pytest.raises(UsageError, match="bad"):
        host.change("bad.gguf", None)
    with pytest.raises(UsageError, match="no such file"):
        host.change("none.gguf", None)
    assert host.conversation is other  # the old one goes on
    larger = host.change(None, 5000)
    assert larger.n_ctx == 5000
    assert host.opened[-1] == "two.gguf"
    assert list(host.models()) == ["bad.gguf", "one.gguf", "two.gguf"]
    with host:
        pass
    assert host.closed == ["one.gguf", "two.gguf", "two.gguf"]
