"""Of a first hour: the chat in a real terminal (points 1 and 2)."""

import json
import time

from terminals import CTRL_C, TAB, UP, Terminal

from hour.walk import until

SENT = b"\x1b[?2004l"  # what a terminal is told when a line has been typed
PASTED = "Here is a list:\n/bye\n\n- one\n- two"


def _chat(walk, *words):
    program = [*walk.ggq, "chat", walk.model, "--temp", "0", *words]
    return Terminal(program, walk.folder, patience=walk.patience, **walk.env)


def _saved(walk, terminal, name):
    """Return the messages as /save keeps them."""
    terminal.command(f"/save {name}", name)
    until((walk.folder / name).exists, walk.patience)
    time.sleep(0.3)
    kept = json.loads((walk.folder / name).read_text("utf-8"))
    return kept["messages"] if isinstance(kept, dict) else kept


def typing(walk):
    """Paste, complete, search, stop, attach, take back; the messages are as they were meant."""
    (walk.folder / "notes.txt").write_text("The notes.\n")
    with _chat(walk, "-n", "16") as t:
        t.paste(PASTED)
        t.ask()
        messages = _saved(walk, t, "pasted.json")
        assert [m["role"] for m in messages] == ["user", "assistant"]
        assert messages[0]["content"] == PASTED
        walk.saw("1", "a pasted text of five lines, one of them /bye, is one message")
        t.type(b"/fi", TAB, b"no", TAB, b"\r")
        t.wait_for(b"goes with the next message")
        t.ask(b"What is in it?")
        assert "The notes." in _saved(walk, t, "file.json")[2]["content"]
        walk.saw("1", "Tab completes commands and files; /file goes with the next message")
        t.ask(UP, UP, b" Again.")  # the last was /save
        t.type(b"/help", b"\r")
        shown = t.wait_for(b"stop the answer; leave")
        for name in ("bye", "copy", "ctx", "file", "help", "info", "model", "undo"):
            assert f"/{name} " in shown, shown
        t.command("/info", "context:")
        before = _saved(walk, t, "before.json")
        assert before[-2]["content"] == "What is in it? Again."
        t.command("/undo", "forgotten:")
        assert _saved(walk, t, "after.json") == before[:-2]
        walk.saw("1", "Up brings messages back; /help /info /undo /save")
        t.type(b"/bye", b"\r")
        assert t.exit_code() == 0
    with _chat(walk, "-n", "4000") as t:
        for drawn in (0, 5):  # at once, and in the middle: each piece is drawn anew
            t.type(b"Tell me a very long story about two ships.", b"\r")
            t.wait_for(SENT)
            for _ in range(drawn):
                t.wait_for(b"\r\x1b[J")
            t.type(CTRL_C)
            t.wait_for(b"(stopped)")
            t.wait_for(b">>>")
        t.type(b"/bye", b"\r")
        assert t.exit_code() == 0
    walk.saw("1", "Ctrl-C stops an answer, also right behind Enter, not the chat; /bye leaves")


def full_context(walk, n_ctx=160):
    """Fill the context: it is told, and each way out goes on."""
    for key, known in ((b"d", "forgotten"), (b"s", "summarized")):
        with _chat(walk, "-n", "24", "--ctx", str(n_ctx)) as t:
            for n in range(12):
                t.type(f"Tell me about fish number {n}, please.".encode(), b"\r")
                t.wait_for(SENT)
                shown = t.wait_for(b">>>", b"either?")
                if t.met == b"either?":
                    break
            else:
                raise AssertionError("the context never filled")
            assert "the context is full" in shown
            t.type(key, b"\r")
            t.wait_for(known.encode())
            t.wait_for(b">>>")
            t.type(b"/bye", b"\r")
            assert t.exit_code() == 0
        walk.saw("2", f"the context ends, it is told; {key.decode()}: {known}, and it goes on")
