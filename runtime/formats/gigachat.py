"""GigaChat 3: a call is a message of another role, in 3.1 JSON after <|function_call|>."""

from __future__ import annotations

from collections.abc import Collection

from ggq.runtime.formats.base import Format, Function, Lark
from ggq.runtime.formats.json_calls import JsonReader
from ggq.runtime.formats.marked import MarkedFormat
from ggq.runtime.formats.rules import Written, json_rules

__all__ = ["FORMAT"]

_END, _ROLE, _MARK = "<|message_sep|>", "<|role_sep|>", "<|function_call|>"
_CALL = '{"name": "$NAME", "arguments": ', "}"
_ROLES = Written(around=(f"{_END}\n\nfunction call{_ROLE}\n", ""), call=_CALL, marks=(_END, _ROLE))
_MARKED = Written(around=(_MARK, ""), call=_CALL, marks=(_MARK,))


class GigaChat(MarkedFormat):
    """An answer has one call, as its templates write no more."""

    name = "gigachat"
    calls = ((f"function call{_ROLE}", _END), (_MARK, _END))
    dropped = (_END,)
    marks = (_ROLE,)
    reader = JsonReader
    written = _ROLES

    def recognizes(self, template: str, tokens: Collection[str]) -> bool:
        return (_ROLE in template and "function call" in template) or _MARK in template

    def fitted(self, template: str, tokens: Collection[str]) -> Format:
        return self.changed(written=_MARKED) if _MARK in template else self

    def rules(self, functions: list[Function], lark: Lark, many: bool) -> list[str]:
        return json_rules(functions, lark, False, self.written)


FORMAT = GigaChat()
