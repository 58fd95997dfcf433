"""Muse Glimmer: messages to oneself, to a tool and to the user; calls in <atem:...> tags."""

from __future__ import annotations

import re

from ggq.runtime.formats.base import Tools
from ggq.runtime.formats.marked import MarkedFormat, MarkedParser
from ggq.runtime.formats.rules import Written
from ggq.runtime.formats.tagged import Tags, TagsReader
from ggq.runtime.template.template import Segment

__all__ = ["FORMAT"]

_MARKS = "<atem:function_calls>", "</atem:function_calls>"
_SELF, _USER = " to=self<|message|>", " to=user<|message|>"
_NEXT = "<|start|>assistant"
_WRITTEN = Written(
    call=(
        f' to=$NAME<|message|>{_MARKS[0]}\n<atem:invoke name="$NAME">\n',
        f"</atem:invoke>\n{_MARKS[1]}",
    ),
    argument=('<atem:parameter name="$KEY">', "</atem:parameter>\n"),
    between=f"<|eom|>{_NEXT}",
    marks=(*_MARKS, "<|message|>", "<|eom|>", "<|start|>"),
)


class MuseReader(TagsReader):
    """White space at the beginning of a value is a part of it."""

    tags = Tags(
        function=re.compile(r'\s*<atem:invoke name="([^">\n]+)">\s*'),
        parameter=re.compile(r'\s*<atem:parameter name="([^">\n]+)">'),
        end=re.compile(r"\s*</atem:invoke>"),
        closes=("</atem:parameter>",),
        after=("<atem:parameter name=", "</atem:invoke>", _MARKS[1]),
        line_end=False,
    )


class Muse(MarkedFormat):
    """An answer is one message or several; the prompt ends before the first one's recipient."""

    name = "muse"
    think = (_SELF, "<|eom|>")
    calls = (_MARKS,)
    dropped = (_NEXT, _USER, "<|eom|>", "<|eot|>")
    marks = ("<|start|>", "<|message|>")
    reader = MuseReader
    written = _WRITTEN

    @property
    def thoughts(self) -> tuple[str, str, str]:
        return *self.think, f"<|eom|>{_NEXT}"

    def parser(self, tools: Tools, thinking: bool, continued: bool = False) -> MarkedParser:
        """Return the reader of one answer, which knows the tools as recipients, too."""
        headers = (f" to={name}<|message|>" for name in tools)
        form = self.changed(dropped=(*self.dropped, *headers))
        return MarkedParser(form, tools, thinking, continued)

    def begun(
        self, content: str, thoughts: str, prompt: str, thinking: bool
    ) -> tuple[list[Segment], bool]:
        """Thoughts and what is said are messages of their own; the prompt has begun the first."""
        segments = []
        if thoughts:
            segments += [Segment(_SELF, True), Segment(thoughts, False)]
        if thoughts and content:
            segments.append(Segment(f"<|eom|>{_NEXT}", True))
        if content:
            segments += [Segment(_USER, True), Segment(content, False)]
        return segments, bool(thoughts) and not content


FORMAT = Muse()
