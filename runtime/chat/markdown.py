"""Markdown to a terminal's lines: rich renders, the terminal's own sixteen colours are used.

It knows no terminal's size and writes nothing. Raw HTML, images and formulas stay the text that
the model wrote.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar

from markdown_it import MarkdownIt
from pygments import token
from rich.color import ColorSystem
from rich.console import Console, ConsoleOptions, RenderResult
from rich.markdown import CodeBlock, Heading, Markdown
from rich.segment import Segment
from rich.style import Style
from rich.syntax import ANSISyntaxTheme, Syntax
from rich.text import Text

__all__ = ["Renderer", "finished"]

# Colours 1 to 6 can be read on black and on white alike.
_CODE = ANSISyntaxTheme({
    token.Comment: Style(dim=True, italic=True),
    token.Keyword: Style(color="magenta"),
    token.Operator.Word: Style(color="magenta"),
    token.Name.Builtin: Style(color="cyan"),
    token.Name.Class: Style(color="blue", bold=True),
    token.Name.Decorator: Style(color="cyan"),
    token.Name.Function: Style(color="blue", bold=True),
    token.Name.Tag: Style(color="blue"),
    token.Name.Attribute: Style(color="cyan"),
    token.Number: Style(color="cyan"),
    token.String: Style(color="green"),
    token.Generic.Deleted: Style(color="red"),
    token.Generic.Inserted: Style(color="green"),
    token.Generic.Heading: Style(bold=True),
})  # fmt: skip
_STYLES = {
    "markdown.code": Style(color="cyan"),
    "markdown.block_quote": Style(dim=True),
    "markdown.item.bullet": Style(bold=True),
    "markdown.item.number": Style(bold=True),
    "markdown.link": Style(underline=True),
    "markdown.link_url": Style(dim=True),
    "markdown.hr": Style(dim=True),
    "markdown.table.border": Style(dim=True),
    "markdown.table.header": Style(bold=True),
    **{f"markdown.h{n}": Style(bold=True) for n in range(2, 7)},
    "markdown.h1": Style(bold=True, underline=True),
}
_FORMULA = re.compile(r"\\\(.+?\\\)|\\\[.+?\\\]|\$\$.+?\$\$|\$(?!\s)[^$\n]+?(?<!\s)\$(?!\d)", re.S)


def _formula(state: Any, silent: bool) -> bool:
    """Read a formula as text: its backslashes, stars and underscores are no markup."""
    match = _FORMULA.match(state.src, state.pos)
    if match is None:
        return False
    if not silent:
        state.push("text", "", 0).content = match[0]
    state.pos = match.end()
    return True


def _parser() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False}).enable(["strikethrough", "table"])
    parser.disable(["image", "html_inline", "html_block"])
    parser.inline.ruler.before("escape", "formula", _formula)
    return parser


_PARSER = _parser()


def finished(text: str) -> int:
    """Return how many first characters are a block that nothing which follows can change."""
    starts = [t.map[0] for t in _PARSER.parse(text) if t.level == 0 and t.map and t.nesting >= 0]
    if len(starts) < 2:
        return 0
    lines = text.splitlines(keepends=True)
    return sum(map(len, lines[: starts[1]]))


class _Heading(Heading):
    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text("#" * int(self.tag[1:]) + " ", style="dim") + self.text


class _CodeBlock(CodeBlock):
    """Code as it is, so that it can be copied, between faint lines."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        name = "" if self.lexer_name == "text" else self.lexer_name
        yield Text(f"```{name}", style="dim")
        code = str(self.text).removesuffix("\n")
        yield Syntax(code, self.lexer_name, theme=_CODE, word_wrap=True, background_color="default")
        yield Text("```", style="dim")


class _Markdown(Markdown):
    elements: ClassVar[dict[str, Any]] = {
        **Markdown.elements, "heading_open": _Heading, "fence": _CodeBlock, "code_block": _CodeBlock
    }  # fmt: skip

    def __init__(self, text: str) -> None:
        super().__init__("", hyperlinks=False)
        self.parsed = _PARSER.parse(text)
        for inline in self.parsed:
            for part in inline.children or ():
                if part.type == "softbreak":  # models end lines where they mean it
                    part.type = "hardbreak"


class Renderer:
    """Renders Markdown into lines with escape sequences."""

    def __init__(self, console: Console) -> None:
        """Take the console whose colours are used; nothing is written to it."""
        from rich.theme import Theme

        self._console = console
        console.push_theme(Theme(_STYLES))

    def lines(self, text: str, width: int) -> list[str]:
        """Return a text's lines, none wider than ``width`` cells."""
        return self._lines(_Markdown(text), width)

    def dim(self, text: str, width: int) -> list[str]:
        """Return plain text's lines, wrapped at words and dimmed."""
        return self._lines(Text(text, style="dim"), width)

    def _lines(self, what: Any, width: int) -> list[str]:
        options = self._console.options.update(width=width, height=None)
        rows = self._console.render_lines(what, options, pad=False)
        lines = [self._line(row) for row in rows]
        while lines and not lines[-1]:
            lines.pop()
        while lines and not lines[0]:
            lines.pop(0)
        return lines

    def _line(self, row: list[Segment]) -> str:
        while row and not row[-1].text.strip() and not (row[-1].style and row[-1].style.underline):
            row = row[:-1]
        if row:
            row = [*row[:-1], row[-1]._replace(text=row[-1].text.rstrip())]
        return "".join(map(_escaped, row))


def _escaped(segment: Segment) -> str:
    if segment.style is None:
        return segment.text
    return segment.style.render(segment.text, color_system=ColorSystem.STANDARD)
