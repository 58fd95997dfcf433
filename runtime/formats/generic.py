"""For models of no known format: calls are explained to them as Hermes', and read in most ways."""

from __future__ import annotations

from collections.abc import Collection

from ggq.runtime.formats.hermes import FORMAT as HERMES
from ggq.runtime.formats.marked import MarkedFormat
from ggq.runtime.formats.rules import Written
from ggq.runtime.formats.tagged import TaggedReader

__all__ = ["FORMAT"]

_WRITTEN = Written(call=('{"name": "$NAME", "arguments": ', "}"), between="\n")


class Generic(MarkedFormat):
    """What all other formats leave over."""

    name = "generic"
    rank = -100
    calls = (*HERMES.calls, ("<|python_tag|>", ""), ("[TOOL_CALLS]", ""))
    bare = True
    reader = TaggedReader
    written = _WRITTEN

    def recognizes(self, template: str, tokens: Collection[str]) -> bool:
        return True


FORMAT = Generic()
