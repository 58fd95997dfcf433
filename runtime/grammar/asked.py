"""What is asked of an answer's text: a grammar, or JSON as OpenAI's ``response_format`` says it.

It reads and refuses; ggq.runtime.grammar.compiler compiles.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ggq.errors import option
from ggq.runtime.grammar.compiler import GrammarCompiler, GrammarError, MakeConstraint
from ggq.runtime.grammar.json_schema import prepared

__all__ = ["Asked", "schema_of"]

_FIELD = "response_format"


@dataclass(frozen=True)
class Asked:
    """What an answer has to be: a text of ``grammar`` (GBNF or Lark), or a ``response_format``.

    GrammarError where both are given or one is of the wrong kind.
    """

    grammar: str | None = None
    response_format: Mapping[str, Any] | None = None
    origin: str = ""  # where it stands, for messages: --grammar-file poem.gbnf

    def __post_init__(self) -> None:
        """Hold what users give to what it may be."""
        grammar, form = self.grammar, self.response_format
        if grammar is not None and form is not None:
            raise GrammarError(option("--grammar"), "not together with a JSON schema: give one")
        if grammar is not None and not (isinstance(grammar, str) and grammar.strip()):
            raise GrammarError(option("--grammar"), "expected the text of a grammar (GBNF or Lark)")
        if form is not None and not isinstance(form, Mapping):
            told = 'expected {"type": "json_object"} or {"type": "json_schema", "json_schema": ...}'
            raise GrammarError(_FIELD, told)

    def made(self, compiler: GrammarCompiler) -> MakeConstraint | None:
        """Return a factory of constraints, None where the text is free; GrammarError."""
        if self.grammar is not None:
            return compiler.grammar(self.grammar, self.origin or option("--grammar"))
        schema = schema_of(self.response_format)
        origin = self.origin or option("--json-schema", _FIELD)
        return None if schema is None else compiler.json(schema, origin)


def schema_of(form: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return the JSON schema that a ``response_format`` asks for, None for plain text.

    GrammarError where it is of no known type or has no schema.
    """
    kind = form.get("type") if form else "text"
    if form is None or kind == "text":
        return None
    if kind == "json_object":
        schema, lenient = form.get("schema", {"type": "object"}), form.get("strict") is False
        where = f"{_FIELD}.schema"
    elif kind == "json_schema":
        wrapper = form.get("json_schema")
        wrapper = wrapper if isinstance(wrapper, dict) else {}
        schema, lenient = wrapper.get("schema"), wrapper.get("strict") is False
        where = f"{_FIELD}.json_schema.schema"
    else:
        raise GrammarError(f"{_FIELD}.type", "expected text, json_object or json_schema", _FIELD)
    if not isinstance(schema, dict):
        raise GrammarError(where, "expected a JSON schema", _FIELD)
    return prepared(schema, _FIELD, lenient)
