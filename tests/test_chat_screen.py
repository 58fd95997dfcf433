"""Answers on a terminal: rendered while they stream, drawn again without a trace, thoughts folded.

The terminal is one of the tests' own (screens.py); a real one is in test_chat_terminal.py.
"""

import io
import os
import random
import re

import pytest
from rich.console import Console
from screens import Screen

from ggq.runtime.chat import rendered
from ggq.runtime.chat.markdown import Renderer, finished
from ggq.runtime.chat.rendered import Area, Rendered
from ggq.runtime.chat.screen import Printer
from ggq.runtime.generation.answer import Piece

ANSWER = """# Title

A paragraph with **bold** words, a `name`, and enough text that it has to be wrapped at words.

1. one with a long text that goes on for more than one line of the terminal
2. two
   - nested

```python
def f(x):
    return x  # as it is
```

| a | b |
|---|---|
| 1 | 2 |
| 333 | a longer cell |

> quoted

The end
of it."""


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(rendered, "_INTERVAL", 0.0)
    monkeypatch.setattr(rendered, "_SHARE", 0)


def plain(lines):
    return [re.sub(r"\x1b\[[0-9;]*m", "", line).rstrip() for line in lines]


def renderer():
    return Renderer(Console(file=io.StringIO(), force_terminal=True))


def resized(screen, monkeypatch):
    size = property(lambda self: os.terminal_size((screen.columns, screen.lines)))
    monkeypatch.setattr(Area, "size", size)


def pieces(text, rng, thought=False):
    while text:
        n = rng.randint(1, 9)
        yield Piece(text[:n], thought=thought)
        text = text[n:]


def stream(screen, monkeypatch, *parts, thoughts="fold", seed=0):
    resized(screen, monkeypatch)
    rng = random.Random(seed)
    printer = Rendered(screen, io.StringIO(), thoughts)
    printer.stream(p for text, thought in parts for p in pieces(text, rng, thought))
    return screen.shown()


def whole(text, width):
    """Return the lines of a text that is rendered block by block, after it is complete."""
    lines, cut = [], 1
    while text:
        cut = finished(text) or len(text)
        lines += ([""] if lines else []) + plain(renderer().lines(text[:cut], width))
        text = text[cut:]
    return lines


@pytest.mark.parametrize("columns", [24, 40, 79])
@pytest.mark.parametrize("seed", range(3))
def test_what_is_drawn_in_pieces_is_what_the_whole_would_be(columns, seed, monkeypatch):
    screen = Screen(columns, 60)
    assert stream(screen, monkeypatch, (ANSWER, False), seed=seed) == [
        *whole(ANSWER, columns - 1), ""
    ]  # fmt: skip


def test_a_block_longer_than_the_screen_is_shown_once_and_whole(monkeypatch):
    code = "```python\n" + "".join(f"line_{i} = {i}\n" for i in range(50)) + "```\n\nafter"
    shown = stream(Screen(40, 9), monkeypatch, (code, False))
    assert [row for row in shown if row.startswith("line_")] == [
        f"line_{i} = {i}" for i in range(50)
    ]
    assert shown[-2:] == ["after", ""]


def test_words_are_not_cut_and_no_line_is_too_long(monkeypatch):
    text = "a considerably longish paragraph of several words " * 6
    shown = stream(Screen(31, 50), monkeypatch, (text, False))
    assert max(map(len, shown)) <= 30
    assert " ".join(" ".join(shown).split()) == text.strip()


def test_thoughts_are_seen_while_they_come_and_folded_after(monkeypatch):
    screen = Screen(40, 20)
    seen = []
    write = screen.write
    monkeypatch.setattr(screen, "write", lambda text: (write(text), seen.append(screen.shown())))
    thoughts = "First this. " * 20 + "At last that."
    shown = stream(screen, monkeypatch, (thoughts, True), ("Yes.", False))
    assert shown[0].startswith("[thought for 0.")
    assert shown[1:] == ["prints it]", "Yes.", ""]
    assert any("At last that." in row for rows in seen for row in rows)
    assert all(len(rows) <= 5 for rows in seen)
    shown = stream(Screen(40, 40), monkeypatch, (thoughts, True), ("Yes.", False), thoughts="show")
    assert " ".join(" ".join(shown).split()) == f"{thoughts} Yes."
    hidden = stream(Screen(40, 20), monkeypatch, (thoughts, True), ("Yes.", False), thoughts="hide")
    assert hidden == ["Yes.", ""]


@pytest.mark.parametrize(
    ("mode", "said"), [("fold", r"\[thought for 0\.0 s; .*\]\n"), ("show", "hm\n\n"), ("hide", "")]
)
def test_thoughts_never_reach_a_pipe(mode, said):
    out, err = io.StringIO(), io.StringIO()
    Printer(out, err, mode).stream(p for p in (Piece("hm", thought=True), Piece("Yes.")))
    assert out.getvalue() == "Yes.\n"
    assert re.fullmatch(said, err.getvalue())


@pytest.mark.parametrize(
    ("markdown", "shown"),
    [
        ("use <div> and <b>this</b>", "use <div> and <b>this</b>"),
        ("<table>\n<tr>", "<table>\n<tr>"),
        ("![alt](http://x/y.png)", "!alt (http://x/y.png)"),
        ("[text](http://x/)", "text (http://x/)"),
        (r"\(a_1 * b_2 * c\) and $x_1*y*z$", r"\(a_1 * b_2 * c\) and $x_1*y*z$"),
        ("costs $5 and *more* than $6", "costs $5 and more than $6"),
        ("Roses are red\nviolets are blue", "Roses are red\nviolets are blue"),
        ("```py\n  x = 1\n\n  y\n```", "```py\n  x = 1\n\n  y\n```"),
        ("    indented", "```\nindented\n```"),
        ("```\nno end", "```\nno end\n```"),
    ],
)
def test_nothing_that_was_written_is_lost(markdown, shown):
    assert "\n".join(plain(renderer().lines(markdown, 60))) == shown


def test_colours_are_the_terminals_own(monkeypatch):
    lines = "".join(renderer().lines(ANSWER, 79))
    codes = {int(c) for m in re.findall(r"\x1b\[([0-9;]*)m", lines) for c in m.split(";") if c}
    assert codes <= {0, 1, 2, 3, 4, 31, 32, 34, 35, 36, 49}


def test_a_model_cannot_move_the_cursor(monkeypatch):
    shown = stream(Screen(60, 9), monkeypatch, ("a\x1b[2Jb\x9b1A", False))
    assert shown == ["a\\x1b[2Jb\\x9b1A", ""]


@pytest.mark.parametrize(("columns", "lines"), [(60, 12), (40, 6), (90, 20)])
def test_a_new_size_in_the_middle_loses_nothing(columns, lines, monkeypatch):
    screen = Screen(40, 12)
    resized(screen, monkeypatch)
    printer = Rendered(screen, io.StringIO())
    text = "".join(f"word{i} " for i in range(150))

    def halves():
        yield from pieces(text[:600], random.Random(1))
        screen.columns, screen.lines = columns, lines
        yield from pieces(text[600:], random.Random(2))

    printer.stream(halves())
    shown = " ".join(screen.shown()).split()
    assert shown == text.split()
