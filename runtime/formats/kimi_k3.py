"""Kimi K3: elements of control tokens, for thoughts, what is said, calls and each argument."""

from __future__ import annotations

import re
from collections.abc import Collection

from ggq.runtime.formats.marked import MarkedFormat
from ggq.runtime.formats.rules import Written
from ggq.runtime.formats.tagged import Tags, TagsReader

__all__ = ["FORMAT"]

_TOKENS = "<|open|>", "<|close|>", "<|sep|>"


def _element(name: str) -> tuple[str, str]:
    return f"<|open|>{name}<|sep|>", f"<|close|>{name}<|sep|>"


_OPEN, _CLOSE, _SEP = (re.escape(token) for token in _TOKENS)
_CALLS, _CALL, _ARGUMENT, _JSON = map(_element, ("tools", "call", "argument", "json"))
_WRITTEN = Written(
    around=_CALLS,
    call=('<|open|>call tool="$NAME" index="$ID"<|sep|>', _CALL[1]),
    argument=('<|open|>argument key="$KEY" type="$TYPE"<|sep|>', _ARGUMENT[1]),
    marks=_TOKENS,
)


class KimiReader(TagsReader):
    """An argument says its type; arguments may also come as one JSON object."""

    tags = Tags(
        function=re.compile(
            rf'\s*{_OPEN}call tool="([^"]+)"[^<]*{_SEP}(?:{_OPEN}json type="object"{_SEP})?'
        ),
        parameter=re.compile(rf'\s*{_OPEN}argument key="([^"]+)" type="(?P<text>[a-z]+)"{_SEP}'),
        end=re.compile(rf"\s*(?:{re.escape(_JSON[1])})?{re.escape(_CALL[1])}"),
        closes=(_ARGUMENT[1],),
        after=('<|open|>argument key="', _CALL[1]),
        line_end=False,
    )


class KimiK3(MarkedFormat):
    """The prompt opens thoughts, or what is said."""

    name = "kimi_k3"
    think = _element("think")
    calls = (_CALLS,)
    dropped = (*_element("response"), "<|close|>message<|sep|>")
    marks = _TOKENS
    reader = KimiReader
    written = _WRITTEN

    def recognizes(self, template: str, tokens: Collection[str]) -> bool:
        return all(token in template for token in _TOKENS)


FORMAT = KimiK3()
