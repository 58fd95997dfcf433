"""How a model is told of tools and of calls: by its template, in the system message, or as text.

What a template does with tools is tried once, on a tool of a name that nobody else has: some have
the word and ignore what they are given. It knows messages and templates, no request.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from functools import cached_property
from typing import Any

from ggq.errors import GGQError
from ggq.runtime.formats.base import Format

__all__ = ["Telling"]

Messages = list[dict[str, Any]]
Tools = list[dict[str, Any]]

_EXPLAINED = (
    "You may call one or more functions to assist with the user query.\n\n"
    "You are provided with function signatures within <tools></tools> XML tags:\n<tools>\n{tools}\n"
    "</tools>\n\nFor each function call, return a json object with function name and arguments "
    "in this form:\n{example}"
)
_PROBE = "zq7_probe"
_BY_VARIABLE, _IN_MESSAGE, _AS_TEXT = "variable", "message", "text"


class Telling:
    """What one model's template is given where there are tools."""

    def __init__(self, template: Any, form: Format) -> None:
        self._template, self._form = template, form
        sources = [template.source, *template.variants.values()]
        self._has_word = any("tools" in source for source in sources)
        self.knows_calls = any("tool_calls" in source for source in sources)

    @cached_property
    def _way(self) -> str:
        """How the template takes tools: a variable, a member of the system message, or not."""
        if not self._has_word:
            return _AS_TEXT
        schema = {"type": "object", "properties": {"a": {"type": "string"}}}
        function = {"name": _PROBE, "description": "d", "parameters": schema}
        tools, ask = [{"type": "function", "function": function}], {"role": "user", "content": "x"}
        try:
            if _PROBE in self._template.render_text([ask], tools=tools):
                return _BY_VARIABLE
            if _PROBE in self._template.render_text(_with_member([ask], tools)):
                return _IN_MESSAGE
        except GGQError:  # it is as it is: what it refuses is told when it is used
            return _BY_VARIABLE
        return _AS_TEXT

    @property
    def by_template(self) -> bool:
        """Whether the template writes the tools by itself."""
        return self._way != _AS_TEXT

    def tools(self, messages: Messages, tools: Tools) -> tuple[Messages, Tools | None]:
        """Return messages that tell of tools, and the template's variable of that name."""
        if not tools:
            return messages, None
        if self._way == _BY_VARIABLE:
            return messages, tools
        if self._way == _IN_MESSAGE:
            return _with_member(messages, tools), None
        return _explained(messages, tools, self._form.example), None

    def call(self, message: dict[str, Any]) -> dict[str, Any]:
        """Return a message with its calls or their result as the template takes them.

        Calls become text where it knows none, in the model's own form where that is JSON; results,
        where it knows neither tools nor calls.
        """
        if self.knows_calls:
            return message
        if message["role"] == "tool" and not self._has_word:
            opening, closing = "<tool_response>\n", "\n</tool_response>"
            content = message["content"]
            if isinstance(content, list):  # with pictures
                around = [{"type": "text", "text": text} for text in (opening, closing)]
                return {"role": "user", "content": [around[0], *content, around[1]]}
            return {"role": "user", "content": f"{opening}{content}{closing}"}
        calls = [_function(call) for call in message.pop("tool_calls", ())]
        if calls:
            own = self._form.spelled(calls) if self.by_template else ""  # else as it is explained
            said = [message["content"], own or _usual(calls)]
            message["content"] = "\n".join(filter(None, said))
        return message


def _with_member(messages: Messages, tools: Tools) -> Messages:
    """Return messages whose first is the system's and has the functions as JSON, as Phi 4 wants."""
    functions = json.dumps([tool["function"] for tool in tools], ensure_ascii=False)
    first, rest = {"role": "system", "content": ""}, messages
    if messages[0]["role"] == "system":
        first, rest = messages[0], messages[1:]
    return [{**first, "tools": functions}, *rest]


def _explained(messages: Messages, tools: Tools, example: str) -> Messages:
    """Add the tools' description to the system message."""
    lines = (json.dumps(tool, ensure_ascii=False) for tool in tools)
    text = _EXPLAINED.format(tools="\n".join(lines), example=example)
    if messages[0]["role"] == "system":
        first = {**messages[0], "content": f"{messages[0]['content']}\n\n{text}"}
        return [first, *messages[1:]]
    return [{"role": "system", "content": text}, *messages]


def _function(call: Mapping[str, Any]) -> dict[str, Any]:
    """Return a call's name and its arguments, as an object where they are JSON."""
    function = dict(call["function"])
    if isinstance(function["arguments"], str):
        with suppress(ValueError, RecursionError):  # what is no JSON stays text
            function["arguments"] = json.loads(function["arguments"])
    return function


def _usual(calls: list[dict[str, Any]]) -> str:
    texts = (json.dumps(function, ensure_ascii=False) for function in calls)
    return "\n".join(f"<tool_call>\n{text}\n</tool_call>" for text in texts)
