"""DeepSeek V3.2 and V4: elements whose names begin with a mark; each says whether it is a string.

Only V4's word for the element around all calls differs from V3.2's.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from ggq.runtime.formats.base import Format
from ggq.runtime.formats.marked import MarkedFormat
from ggq.runtime.formats.rules import Written
from ggq.runtime.formats.tagged import Tags, TagsReader

__all__ = ["FORMAT"]

_M = "｜DSML｜"
_V4, _V32 = ((f"<{_M}{word}>", f"</{_M}{word}>") for word in ("tool_calls", "function_calls"))


def _written(marks: tuple[str, str]) -> Written:
    return Written(
        around=(f"{marks[0]}\n", marks[1]),
        call=(f'<{_M}invoke name="$NAME">\n', f"</{_M}invoke>\n"),
        argument=(f'<{_M}parameter name="$KEY" string="$TEXT">', f"</{_M}parameter>\n"),
        marks=(_M,),
    )


class DsmlReader(TagsReader):
    """The attribute ``string`` says a value's type, whatever the schema does."""

    tags = Tags(
        function=re.compile(rf'\s*<{_M}invoke name="([^"\n]+)">\s*'),
        parameter=re.compile(
            rf'\s*<{_M}parameter name="([^"\n]+)"(?: string="(?P<text>true|false)")?>'
        ),
        end=re.compile(rf"\s*</{_M}invoke>"),
        closes=(f"</{_M}parameter>",),
        after=(f"<{_M}parameter name=", f"</{_M}invoke>", _V4[1], _V32[1]),
        line_end=False,
    )


class Dsml(MarkedFormat):
    """The mark alone is a token."""

    name = "dsml"
    calls = (_V4, _V32)
    marks = (_M,)
    reader = DsmlReader
    written = _written(_V4)

    def recognizes(self, template: str, tokens: Collection[str]) -> bool:
        return _M in template

    def fitted(self, template: str, tokens: Collection[str]) -> Format:
        older = "function_calls" in template
        return self.changed(written=_written(_V32)) if older else self


FORMAT = Dsml()
