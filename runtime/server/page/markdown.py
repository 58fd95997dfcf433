"""Markdown as models write it to HTML that is safe to show: CommonMark with tables, struck text,
task lists, bare addresses, mathematics and coloured code.

Nothing of the text reaches the HTML as markup: raw HTML is escaped, links lead to http, https and
mailto only, images are links (loading one would tell its server that the answer was read), and no
element has a style or a handler.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

from markdown_it import MarkdownIt
from markdown_it.common.utils import unescapeAll
from markdown_it.rules_core import StateCore
from markdown_it.token import Token
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name
from pygments.util import ClassNotFound

from ggq.runtime.server.page.mathematics import mathematics

__all__ = ["Block", "parser", "render"]

_MAX_CODE = 1 << 16  # characters of a block that are coloured
_PREFIX = "c-"  # of the classes of coloured code
_MAX_INLINE = 20_000  # characters of a paragraph
_ADDRESS = re.compile(r"\bhttps?://[^\s<>\"`]{1,2000}")
_PUNCTUATION = "?!.,:;*_~'"
_TASK = re.compile(r"\[([ xX])\][ \t]+")
_ALIGNED = re.compile(r"text-align:(left|center|right)")
_HEADING = {"h1": "h3", "h2": "h4", "h3": "h5"}  # the page and its messages have the levels above
_LINKED = ("http://", "https://", "mailto:")


class Block(NamedTuple):
    """A block of the outermost level: the line that it begins in, and its HTML."""

    line: int
    html: str


def render(text: str) -> list[Block]:
    """Return a text's blocks in order."""
    md = parser()
    environment: dict[str, Any] = {}
    tokens = md.parse(text, environment)
    blocks, start = [], 0
    for at, token in enumerate(tokens):
        if token.level == 0 and token.nesting <= 0:  # the block ends here
            shown = md.renderer.render(tokens[start : at + 1], md.options, environment)
            lines = tokens[start].map or [0]
            blocks.append(Block(lines[0], shown))
            start = at + 1
    return blocks


@cache
def parser() -> MarkdownIt:
    """Return the parser; it keeps no state between texts."""
    md = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])
    mathematics(md)
    md.core.ruler.before("inline", "endless_text", _spare_endless_text)
    md.core.ruler.after("inline", "bare_addresses", _link_addresses)
    md.core.ruler.push("plain_attributes", _plain_attributes)
    for name, rule in (("fence", _code), ("code_block", _code), ("image", _image)):
        md.add_render_rule(name, rule)
    return md


def _spare_endless_text(state: StateCore) -> None:
    """Leave a paragraph alone that nobody reads: looking for pairs in it takes the square of it."""
    for token in state.tokens:
        if token.type == "inline" and len(token.content) > _MAX_INLINE:
            token.type = "text"


def _link_addresses(state: StateCore) -> None:
    """Make whole addresses links: a model that speaks of main.py means no site in Paraguay."""
    for token in state.tokens:
        if token.type == "inline" and "://" in token.content:
            token.children = list(_with_links(token.children or []))


def _with_links(tokens: list[Token]) -> Iterator[Token]:
    depth = 0
    for token in tokens:
        depth += {"link_open": 1, "link_close": -1}.get(token.type, 0)
        if depth or token.type != "text":
            yield token
            continue
        at = 0
        for found in _ADDRESS.finditer(token.content):
            address = _trimmed(found.group())
            yield Token("text", "", 0, content=token.content[at : found.start()])
            yield Token("link_open", "a", 1, attrs={"href": address})
            yield Token("text", "", 0, content=address)
            yield Token("link_close", "a", -1)
            at = found.start() + len(address)
        yield Token("text", "", 0, content=token.content[at:])


def _trimmed(address: str) -> str:
    """Return an address without the sentence's punctuation or a bracket that opened before it."""
    address = address.rstrip(_PUNCTUATION)
    while address.endswith(")") and address.count(")") > address.count("("):
        address = address[:-1].rstrip(_PUNCTUATION)
    return address


def _plain_attributes(state: StateCore) -> None:
    """Make levels, alignments, links and tasks what the page wants them to be."""
    for at, token in enumerate(state.tokens):
        if token.type in ("heading_open", "heading_close"):
            token.tag = _HEADING.get(token.tag, "h6")
        if style := _ALIGNED.fullmatch(str(token.attrs.pop("style", ""))):
            token.attrSet("class", style.group(1))
        if token.type != "inline":
            continue
        for child in token.children or ():
            if child.type == "link_open":
                _guard(child, "href")
        if at > 1 and state.tokens[at - 2].type == "list_item_open":
            _mark_task(token, state.tokens[at - 2])


def _guard(token: Token, name: str) -> None:
    address = str(token.attrs.pop(name, ""))
    if address.lower().startswith(_LINKED):
        token.attrs = {name: address, "target": "_blank", "rel": "noopener noreferrer"}


def _mark_task(inline: Token, item: Token) -> None:
    first = inline.children[0] if inline.children else None
    if first is None or first.type != "text" or not (found := _TASK.match(first.content)):
        return
    done = found.group(1) != " "
    item.attrSet("class", "task done" if done else "task")
    first.content = ("☑ " if done else "☐ ") + first.content[found.end() :]


def _image(md: Any, tokens: list[Token], at: int, options: Any, env: Any) -> str:
    token = tokens[at]
    name = md.renderInlineAsText(token.children or [], options, env) or "image"
    _guard(token, "src")
    address = html.escape(str(token.attrs.get("src", "")))
    linked = f' href="{address}" target="_blank" rel="noopener noreferrer"' if address else ""
    return f"<a{linked}>{html.escape(name)}</a>"


def _code(md: Any, tokens: list[Token], at: int, *rest: Any) -> str:
    token = tokens[at]
    language = next(iter(unescapeAll(token.info).split()), "")
    shown = _coloured(token.content, language)
    return f'<pre data-language="{html.escape(language)}"><code>{shown}</code></pre>\n'


def _coloured(code: str, language: str) -> str:
    if language and len(code) <= _MAX_CODE:
        try:
            lexer = get_lexer_by_name(language, stripnl=False)
        except ClassNotFound:
            return html.escape(code)
        return str(highlight(code, lexer, HtmlFormatter(nowrap=True, classprefix=_PREFIX)))
    return html.escape(code)
