"""What a request demands of an answer's text, as a grammar: a format, a call, or one of both.

It knows requests and the model's way to write calls; ggq.runtime.grammar compiles.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ggq.runtime.formats.base import Format, Function, Lark
from ggq.runtime.grammar.asked import schema_of
from ggq.runtime.grammar.compiler import (
    AfterReasoning,
    GrammarCompiler,
    GrammarError,
    MakeConstraint,
    begun_with,
)
from ggq.runtime.grammar.json_schema import prepared
from ggq.runtime.server.errors import APIError
from ggq.runtime.server.schema import SamplingBody
from ggq.runtime.server.tools import choice_of

__all__ = ["Constraints"]


class Constraints:
    """Reads response_format, json_schema, grammar and tool_choice for one model."""

    def __init__(self, tokenizer: Any, form: Format):
        self._tokenizer, self._format = tokenizer, form
        self._compiler = GrammarCompiler(tokenizer)

    def of(
        self, body: SamplingBody, tools: list[dict[str, Any]], thinking: bool, begun: str = ""
    ) -> MakeConstraint | None:
        """Return a factory of constraints for what a request demands, None where it is free.

        ``tools``: those that may be called; ``thinking``: the prompt has opened thoughts, which
        stay free; ``begun``: how the answer begins already.
        """
        try:
            make = self._made(body, tools)
            if make is not None and begun:
                make = begun_with(make, self._tokenizer, begun)
        except GrammarError as error:
            status = 501 if error.missing else 400
            raise APIError(status, str(error), error.field) from None
        if make is None or not thinking:
            return make
        closing = self._format.think[1]
        return lambda: AfterReasoning(make(), self._tokenizer, closing)

    def _made(self, body: SamplingBody, tools: list[dict[str, Any]]) -> MakeConstraint | None:
        if body.grammar:
            return self._compiler.grammar(body.grammar, "grammar")
        choice, demanded = choice_of(body), _demanded(body)
        forced = choice.mode in ("required", "named")
        if not tools or not (forced or demanded):
            return self._compiler.json(*demanded) if demanded else None
        many = choice.mode != "named" and getattr(body, "parallel_tool_calls", None) is True
        lark = Lark(self._control)
        lines = self._format.rules([_function(tool) for tool in tools], lark, many)
        start = "start: calls"
        if demanded and not forced:
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
    return Function(function["name"], prepared(schema, "tools", lenient))


def _demanded(body: SamplingBody) -> tuple[dict[str, Any], str] | None:
    """Return the JSON schema that a request demands and the field that does."""
    if body.json_schema is not None:
        return prepared(body.json_schema, "json_schema"), "json_schema"
    schema = schema_of(body.response_format)
    return None if schema is None else (schema, "response_format")
