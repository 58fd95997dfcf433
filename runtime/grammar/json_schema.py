"""JSON schemas as requests give them, made ready for a grammar.

Objects that name their properties have no others, unless additionalProperties says otherwise: so
llama.cpp and Ollama read schemas too, and pydantic's and zod's name none. It knows no grammar.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ggq.runtime.grammar.compiler import GrammarError
from ggq.runtime.grammar.holdable import problem, target

__all__ = ["prepared"]

# Words that make an object's other properties somebody's business.
_OPEN = {"additionalProperties", "patternProperties", "unevaluatedProperties"}
_MERGED = {"type", "properties", "required", "title", "description", "$ref", "allOf"}
# Words whose value is a schema, a list of them, or schemas by name.
_ONE = ("items", "additionalProperties", "contains", "not", "if", "then", "else", "propertyNames")
_LIST = ("anyOf", "oneOf", "allOf", "prefixItems")
_NAMED = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_DEPTH = 64
# Words of a value that asks for nothing: generators of schemas write them out.
_IDLE: dict[str, tuple[Any, ...]] = {
    "uniqueItems": (False,),
    "propertyNames": (True, {}),
    "not": (False,),
    "dependentRequired": ({},),
    "dependentSchemas": ({},),
    "dependencies": ({},),
    "unevaluatedProperties": (True, {}),
    "unevaluatedItems": (True, {}),
    "minProperties": (0,),
    "minContains": (0,),
}
_ASIDE = ("allOf", "anyOf", "oneOf", "if", "$ref", "dependentSchemas")  # know of properties, too


def prepared(schema: Mapping[str, Any], field: str, lenient: bool = False) -> dict[str, Any]:
    """Return a schema with its objects closed; ``lenient`` drops words that no grammar has.

    GrammarError, of ``field``, where no grammar can hold it.
    """
    told = problem(schema)
    if told:
        raise GrammarError(field, told)
    closed = _closed(schema, schema, 0)
    if lenient:
        given = closed.get("x-guidance", {})
        closed["x-guidance"] = {**given, "lenient": True, "coerce_one_of": True}
    found: dict[str, Any] = closed
    return found


def _closed(part: Any, root: Mapping[str, Any], depth: int) -> Any:
    if not isinstance(part, Mapping) or depth > _DEPTH:
        return part
    merged = _merged(part, root, 0)
    out = _plain(part if merged is None else merged)
    if isinstance(out.get("properties"), Mapping) and not _OPEN & set(out) and "allOf" not in out:
        out["additionalProperties"] = False
    if _distinct(out.get("oneOf")) and "anyOf" not in out:
        out["anyOf"] = out.pop("oneOf")
    for word in _ONE:
        if word in out:
            out[word] = _closed(out[word], root, depth + 1)
    for word in _LIST:
        # Members of allOf apply together: closed ones would forbid each other's properties.
        if isinstance(out.get(word), list) and (word != "allOf" or len(out[word]) == 1):
            out[word] = [_closed(p, root, depth + 1) for p in out[word]]
    for word in _NAMED:
        if isinstance(out.get(word), Mapping):
            out[word] = {k: _closed(p, root, depth + 1) for k, p in out[word].items()}
    return out


def _plain(part: Mapping[str, Any]) -> dict[str, Any]:
    """Return a schema without words that ask for nothing, others in the form that grammars know."""
    out = {
        word: value
        for word, value in part.items()
        if not any(value is idle or (value == idle == {}) for idle in _IDLE.get(word, ()))
    }
    if "if" not in out:
        out.pop("then", None)
        out.pop("else", None)
    elif not {"then", "else"} & set(out):
        del out["if"]
    if out.pop("nullable", False) is True and isinstance(out.get("type"), str):  # OpenAPI 3.0
        out["type"] = [out["type"], "null"]
        if isinstance(out.get("enum"), list) and None not in out["enum"]:
            out["enum"] = [*out["enum"], None]
    if "unevaluatedProperties" in out and not {*_ASIDE, "additionalProperties"} & set(out):
        out["additionalProperties"] = out.pop("unevaluatedProperties")
    return out


def _distinct(members: Any) -> bool:
    """Tell whether no value can be of two members, since each lists its own: one is any, then."""
    if not isinstance(members, list) or not all(isinstance(m, Mapping) for m in members):
        return False
    listed = [[m["const"]] if "const" in m else m.get("enum") for m in members]
    if not all(isinstance(values, list) for values in listed):
        return False
    texts = [{json.dumps(value, sort_keys=True) for value in values} for values in listed]
    return len(set().union(*texts)) == sum(map(len, texts))


def _merged(part: Mapping[str, Any], root: Mapping[str, Any], depth: int) -> dict[str, Any] | None:
    """Return an object's schema with those of its allOf put together, None where that is open."""
    members = part.get("allOf")
    if not isinstance(members, list) or depth > _DEPTH:
        return None
    out = {k: v for k, v in part.items() if k != "allOf"}
    for member in members:
        alone = isinstance(member, Mapping) and set(member) == {"$ref"}
        found = target(member, root) if alone else member
        if isinstance(found, Mapping) and "allOf" in found:
            found = _merged(found, root, depth + 1)
        if not isinstance(found, Mapping) or not set(found) <= _MERGED or "$ref" in found:
            return None
        if not isinstance(found.get("properties"), Mapping) or (
            set(found["properties"]) & set(out.get("properties", {}))
        ):
            return None
        out["properties"] = {**out.get("properties", {}), **found["properties"]}
        required = [*out.get("required", ()), *found.get("required", ())]
        if required:
            out["required"] = list(dict.fromkeys(required))
        out.setdefault("type", "object")
    return out
