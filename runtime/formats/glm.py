"""GLM 4.5 to 4.7 and their like: <tool_call>name, then <arg_key> and <arg_value> in pairs."""

from __future__ import annotations

import re
from collections.abc import Collection

from ggq.runtime.formats.base import Format
from ggq.runtime.formats.marked import MarkedFormat
from ggq.runtime.formats.rules import Written
from ggq.runtime.formats.tagged import Tags, TagsReader

__all__ = ["FORMAT"]

_MARKS = ("<tool_call>", "</tool_call>")
_LINES = Written(
    call=("<tool_call>$NAME\n", "</tool_call>"),
    argument=("<arg_key>$KEY</arg_key>\n<arg_value>", "</arg_value>\n"),
    between="\n",
    marks=_MARKS,
)
_TIGHT = Written(
    call=("<tool_call>$NAME", "</tool_call>"),
    argument=("<arg_key>$KEY</arg_key><arg_value>", "</arg_value>"),
    marks=_MARKS,
)


class GlmReader(TagsReader):
    """Reads the name's line and the pairs after it."""

    tags = Tags(
        function=re.compile(r"\s*([^\s<]+)\s*(?=<arg_key>|</tool_call>)"),
        parameter=re.compile(r"\s*<arg_key>(.*?)</arg_key>\s*<arg_value>", re.DOTALL),
        end=None,
        closes=("</arg_value>",),
        after=("<arg_key>", "</tool_call>"),
        line_end=False,
    )


class Glm(MarkedFormat):
    """A call is the text between the marks; GLM 4.7 and later ones leave out the line ends."""

    name = "glm"
    rank = 1  # its templates have Hermes' marks too
    reader = GlmReader
    written = _LINES

    def recognizes(self, template: str, tokens: Collection[str]) -> bool:
        return "<tool_call>" in template and "<arg_key>" in template

    def fitted(self, template: str, tokens: Collection[str]) -> Format:
        tight = re.search(r"</arg_key>[\"'\s{}~+-]*<arg_value>", template)
        broken = "\n<arg_value>" in template or "\\n<arg_value>" in template
        return self.changed(written=_TIGHT) if tight and not broken else self


FORMAT = Glm()
