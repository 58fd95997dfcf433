"""What a request demands of an answer's text, as a grammar: a format, a call, or one of both.

It knows requests and the model's way to write calls; ggq.runtime.server.grammar compiles.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ggq.runtime.sampling.sampler import Constraint
from ggq.runtime.server.errors import APIError
from ggq.runtime.server.formats.base import Format, Function, Lark
from ggq.runtime.server.grammar import AfterReasoning, GrammarCompiler, MakeConstraint
from ggq.runtime.server.json_schema import prepared
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
        make = self._made(body, tools)
        if make is not None and begun:
            make = self._after(make, begun)
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

    def _after(self, make: MakeConstraint, begun: str) -> MakeConstraint:
        """Return a factory of constraints that have seen the beginning of the answer."""
        ids = self._tokenizer.encode(begun, add_special=False, parse_special=False)

        def made() -> Constraint:
            constraint = make()
            for token in ids:
                if not constraint.allows(token):
                    message = "messages: the answer begun is not what the format or tools ask for"
                    raise APIError(400, message, "messages")
                constraint.accept(token)
            return constraint

        made()
        return made

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
