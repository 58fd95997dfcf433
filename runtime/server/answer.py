"""Parsers of answers: their text, as it comes, to thoughts, content and tool calls."""

from __future__ import annotations

from collections.abc import Iterable

from ggq.runtime.formats.base import Format, Parser, Tools, as_tools

__all__ = ["make_parser"]


def make_parser(form: Format, tools: Iterable[str] | Tools = (), thinking: bool = False) -> Parser:
    """Return a parser for one answer."""
    return form.parser(as_tools(tools), thinking)
