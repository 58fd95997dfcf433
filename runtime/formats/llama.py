"""Llama 3: an answer that is nothing but JSON, with <|python_tag|> before it or without."""

from __future__ import annotations

from collections.abc import Collection

from ggq.runtime.formats.json_calls import JsonReader
from ggq.runtime.formats.marked import MarkedFormat
from ggq.runtime.formats.rules import Written

__all__ = ["FORMAT"]

_WRITTEN = Written(call=('{"name": "$NAME", "parameters": ', "}"), between="; ")


class Llama(MarkedFormat):
    """The arguments are called parameters; several calls stand with ; between."""

    name = "llama"
    rank = -1  # a template with marks of its own says more than the token
    calls = (("<|python_tag|>", ""),)
    bare = True
    reader = JsonReader
    written = _WRITTEN

    def recognizes(self, template: str, tokens: Collection[str]) -> bool:
        return "<|python_tag|>" in tokens and "parameters" in template


FORMAT = Llama()
