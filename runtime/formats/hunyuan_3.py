"""Hunyuan 3: GLM's keys and values in elements whose names have a suffix, within one for all."""

from __future__ import annotations

import re
from collections.abc import Collection

from ggq.runtime.formats.marked import MarkedFormat
from ggq.runtime.formats.rules import Written
from ggq.runtime.formats.tagged import Tags, TagsReader

__all__ = ["FORMAT"]

_SUFFIX = ":opensource"


def _element(name: str) -> tuple[str, str]:
    return f"<{name}{_SUFFIX}>", f"</{name}{_SUFFIX}>"


_THINK, _ALL, _ONE, _KEY, _VALUE = map(
    _element, ("think", "tool_calls", "tool_call", "arg_key", "arg_value")
)
_SEP = f"<tool_sep{_SUFFIX}>"
_WRITTEN = Written(
    around=(f"{_ALL[0]}\n", f"\n{_ALL[1]}"),
    call=(f"{_ONE[0]}$NAME{_SEP}\n", _ONE[1]),
    argument=(f"{_KEY[0]}$KEY{_KEY[1]}\n{_VALUE[0]}", f"{_VALUE[1]}\n"),
    between="\n",
    marks=(*_ALL, *_ONE, _SEP, *_KEY, *_VALUE),
)


class HunyuanReader(TagsReader):
    """Reads the name up to its mark and the pairs after it."""

    tags = Tags(
        function=re.compile(rf"\s*{_ONE[0]}\s*([^\s<]+)\s*{_SEP}"),
        parameter=re.compile(rf"\s*{_KEY[0]}(.*?){_KEY[1]}\s*{_VALUE[0]}", re.DOTALL),
        end=re.compile(rf"\s*{_ONE[1]}"),
        closes=(_VALUE[1],),
        after=(_KEY[0], _ONE[1]),
        line_end=False,
    )


class Hunyuan3(MarkedFormat):
    """All marks are control tokens."""

    name = "hunyuan_3"
    rank = 2
    think = _THINK
    calls = (_ALL,)
    marks = (*_ONE, _SEP, *_KEY, *_VALUE)
    reader = HunyuanReader
    written = _WRITTEN

    def recognizes(self, template: str, tokens: Collection[str]) -> bool:
        return _SEP in tokens or ("<tool_sep" in template and _SUFFIX in template)


FORMAT = Hunyuan3()
