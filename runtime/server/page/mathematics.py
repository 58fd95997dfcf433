r"""TeX mathematics in Markdown: ``$a$``, ``$$a$$``, ``\(a\)`` and ``\[a\]``, rendered as MathML.

What cannot be converted is shown as the source it is. latex2mathml does not escape the text that
it passes on, so its tree is written out here, element by element, from a list of what may appear.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from typing import Any
from xml.etree.ElementTree import Element

from latex2mathml.converter import convert_to_element
from markdown_it import MarkdownIt
from markdown_it.rules_block import StateBlock
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token

__all__ = ["mathematics", "mathml"]

_MAX_SOURCE = 4000  # characters: longer is no formula
_ELEMENT = re.compile(
    "math|mrow|mi|mn|mo|mtext|mspace|mfrac|msqrt|mroot|msub|msup|msubsup|munder|mover|munderover|"
    "mmultiscripts|mprescripts|mtable|mtr|mtd|mstyle|mpadded|mphantom|menclose|merror|none"
)
_ATTRIBUTE = re.compile(
    "accent|accentunder|columnalign|columnlines|columnspacing|depth|display|displaystyle|fence|"
    "form|height|largeop|linebreak|linethickness|lspace|mathcolor|mathsize|mathvariant|maxsize|"
    "minsize|movablelimits|notation|rowlines|rowspacing|rspace|scriptlevel|separator|stretchy|"
    "symmetric|voffset|width"
)
_VALUE = re.compile(r"[\w#.%+ -]*")
# Environments that latex2mathml knows by another name.
_ALIASES = (("aligned", "align*"), ("gathered", "align*"), ("dcases", "cases"))
_CLOSING = {"$$": "$$", r"\[": r"\]", r"\(": r"\)", "$": "$"}
_MACROS = re.compile(r"\\(def|newcommand|newenvironment)(?![A-Za-z])")  # they could expand for ever
_FUNCTION = re.compile("[A-Za-z]{2,}")  # log, lim
_WORD = re.compile(r"\w")


def mathematics(md: MarkdownIt) -> None:
    """Add the rules and the renderers to a parser."""
    paragraph = ["paragraph", "reference", "blockquote", "list"]
    md.block.ruler.before("fence", "math_block", _block, {"alt": paragraph})
    md.inline.ruler.before("escape", "math_inline", _inline)
    md.add_render_rule("math_block", _shown_block)
    md.add_render_rule("math_inline", _shown_inline)


def mathml(source: str, display: bool) -> str | None:
    """Return a formula as MathML; None where it cannot be converted."""
    if len(source) > _MAX_SOURCE or _MACROS.search(source):
        return None
    for name, known in _ALIASES:
        for mark in ("begin", "end"):
            source = source.replace(rf"\{mark}{{{name}}}", rf"\{mark}{{{known}}}")
    try:
        root = convert_to_element(source, display="block" if display else "inline")
        found = "".join(_written(root))
    except Exception:  # the library raises whatever it stumbles over, IndexError among others
        return None
    return None if "\\" in found else found  # a command that it does not know is passed on


def _written(element: Element) -> Iterator[str]:
    if element.tag in ("mi", "mo") and _FUNCTION.fullmatch(element.text or ""):
        element.tag = "mo"  # operators alone have space around them
        element.attrib.update(lspace="0.17em", rspace="0.13em")
    known = _ELEMENT.fullmatch(element.tag)
    if known:
        attributes = "".join(
            f' {name}="{value}"'
            for name, value in element.attrib.items()
            if _ATTRIBUTE.fullmatch(name) and _VALUE.fullmatch(value)
        )
        yield f"<{element.tag}{attributes}>"
    # the tree's text holds references such as &#x0003D;
    yield html.escape(html.unescape(element.text or ""))
    for child in element:
        yield from _written(child)
        yield html.escape(html.unescape(child.tail or ""))
    if known:
        yield f"</{element.tag}>"


def _shown_inline(_: Any, tokens: list[Token], at: int, *rest: Any) -> str:
    return mathml(tokens[at].content, False) or f"<code>{html.escape(tokens[at].content)}</code>"


def _shown_block(_: Any, tokens: list[Token], at: int, *rest: Any) -> str:
    source = tokens[at].content
    shown = mathml(source, True) or f"<pre><code>{html.escape(source)}</code></pre>"
    return f'<div class="math">{shown}</div>\n'


def _opening(text: str, at: int) -> str | None:
    return next((mark for mark in _CLOSING if text.startswith(mark, at)), None)


def _inline(state: StateInline, silent: bool) -> bool:
    mark = _opening(state.src, state.pos)
    if mark is None:
        return False
    begin = state.pos + len(mark)
    end = _end(state.src, begin, min(state.posMax, begin + _MAX_SOURCE), mark)
    if end < 0:
        return False
    content = state.src[begin:end]
    if mark == "$" and not _is_formula(content, state.src[end + 1 : end + 2]):
        return False
    if not _WORD.search(content):
        return False
    if not silent:
        token = state.push("math_inline", "math", 0)  # in its line, whatever the marks
        token.content, token.markup = content.strip(), mark
    state.pos = end + len(_CLOSING[mark])
    return True


def _end(text: str, begin: int, limit: int, mark: str) -> int:
    """Return where the closing mark stands, -1 where there is none; ``\\$`` closes nothing."""
    closing, at = _CLOSING[mark], begin
    while (at := text.find(closing, at, limit)) >= 0:
        if closing.startswith("\\") or text[at - 1] != "\\":
            return at
        at += 1
    return -1


def _is_formula(content: str, after: str) -> bool:
    """Return whether text between dollar signs is one: prices are not."""
    return bool(content) and not (content[0].isspace() or content[-1].isspace() or after.isdigit())


def _block(state: StateBlock, first: int, last: int, silent: bool) -> bool:
    if state.is_code_block(first):
        return False
    start = state.bMarks[first] + state.tShift[first]
    mark = _opening(state.src, start)
    if mark not in ("$$", r"\["):
        return False
    closing = _CLOSING[mark]
    if state.src.find(closing, start + len(mark), start + _MAX_SOURCE) < 0:
        return False
    parts = [state.src[start + len(mark) : state.eMarks[first]]]
    line = first
    while closing not in parts[-1]:
        line += 1
        if line >= last or (state.sCount[line] < state.blkIndent and not state.isEmpty(line)):
            return False
        parts.append(state.src[state.bMarks[line] + state.tShift[line] : state.eMarks[line]])
    content, _, rest = "\n".join(parts).partition(closing)
    if rest.strip() or not _WORD.search(content):
        return False  # text goes on after the formula: the paragraph's
    if not silent:
        state.line = line + 1
        token = state.push("math_block", "math", 0)
        token.block, token.content, token.markup = True, content.strip(), mark
        token.map = [first, state.line]
    return True
