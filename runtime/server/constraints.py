"""What a request demands of an answer's text, as a grammar: a format, a call, or one of both.

It knows requests and the model's way to write calls; ggq.runtime.server.grammar compiles.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ggq.runtime.server.errors import APIError
from ggq.runtime.server.formats.base import Format, Function, Lark
from ggq.runtime.server.grammar import AfterReasoning, GrammarCompiler, MakeConstraint
from ggq.runtime.server.json_schema import prepared
from ggq.runtime.server.schema import SamplingBody

__all__ = ["Constraints"]


class Constraints:
    """Reads response_format, json_schema, grammar and tool_choice for one model."""

    def __init__(self, tokenizer: Any, form: Format):
        self._tokenizer, self._format = tokenizer, form
        self._compiler = GrammarCompiler(tokenizer)

    def of(
        self, body: SamplingBody, tools: list[dict[str, Any]], thinking: bool
    ) -> MakeConstraint | None:
        """Return a factory of constraints for what a request demands, None where it is free.

        ``tools``: those that may be called; ``thinking``: the prompt has opened thoughts, which
        stay free.
        """
        make = self._made(body, tools)
        if make is None or not thinking:
            return make
        closing = self._format.think[1]
        return lambda: AfterReasoning(make(), self._tokenizer, closing)

    def _made(self, body: SamplingBody, tools: list[dict[str, Any]]) -> MakeConstraint | None:
        forced = _forced(body, tools)
        if body.grammar:
            found: MakeConstraint | None = self._compiler.grammar(body.grammar, "grammar")
            return found
        demanded = _demanded(body)
        if forced is None and (demanded is None or not tools):
            return None if demanded is None else self._compiler.json(*demanded)
        named = forced is not None and len(forced) < len(tools)
        many = getattr(body, "parallel_tool_calls", None) is True and not named
        lark = Lark(self._control)
        functions = [_function(tool) for tool in (tools if forced is None else forced)]
        lines = self._format.rules(functions, lark, many)
        start = "start: calls"
        if forced is None and demanded is not None:
            start = "start: calls | answer"
            lines.append(f"answer: {lark.json(demanded[0])}")
        return self._compiler.lark("\n".join([start, *lines]), "tools")

    def _control(self, text: str) -> int | None:
        token = self._tokenizer.ids.get(text)
        return token if token is not None and self._tokenizer.is_control(token) else None


def _function(tool: Mapping[str, Any]) -> Function:
    function = tool["function"]
    schema = function.get("parameters") or {"type": "object"}
    lenient = function.get("strict") is False
    return Function(function["name"], prepared(schema, lenient))


def _demanded(body: SamplingBody) -> tuple[dict[str, Any], str] | None:
    """Return the JSON schema that a request demands and the field that does."""
    form, field = body.response_format, "response_format"
    if body.json_schema is not None:
        return prepared(body.json_schema), "json_schema"
    kind = form.get("type") if form else "text"
    if form is None or kind == "text":
        return None
    if kind == "json_object":
        schema, lenient = form.get("schema", {"type": "object"}), form.get("strict") is False
        where = f"{field}.schema"
    elif kind == "json_schema":
        wrapper = form.get("json_schema")
        wrapper = wrapper if isinstance(wrapper, dict) else {}
        schema, lenient = wrapper.get("schema"), wrapper.get("strict") is False
        where = f"{field}.json_schema.schema"
    else:
        message = f"{field}.type: expected text, json_object or json_schema"
        raise APIError(400, message, field)
    if not isinstance(schema, dict):
        raise APIError(400, f"{where}: expected a JSON schema", field)
    return prepared(schema, lenient), field


def _forced(body: Any, tools: list[dict[str, Any]]) -> list[dict[str, Any]] | None:
    """Read tool_choice: "required" or a named function force a call; None where nothing does."""
    choice, field = getattr(body, "tool_choice", None), "tool_choice"
    if isinstance(choice, dict):
        function = choice.get("function", choice)
        name = function.get("name") if isinstance(function, dict) else None
        named = [tool for tool in tools if tool["function"]["name"] == name]
        if not named:
            raise APIError(400, f"{field}: names no function of tools", field)
        return named
    if choice in (None, "none", "auto"):
        return None
    if choice in ("required", "any"):
        return _some(tools, field)
    message = f"{field}: expected none, auto, required or a function"
    raise APIError(400, message, field)


def _some(tools: list[dict[str, Any]], field: str) -> list[dict[str, Any]]:
    if not tools:
        raise APIError(400, f"{field}: required, but there are no tools", field)
    return tools
