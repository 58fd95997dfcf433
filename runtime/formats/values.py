"""What type a tool's schema gives to an argument that a model has written as text."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from typing import Any

from ggq.runtime.formats.json_calls import value_of

__all__ = ["is_text", "property_schema", "resolved", "typed", "types_of"]

_DEPTH = 16  # references that lead in a circle end here
_NAMES: dict[type, tuple[str, ...]] = {
    bool: ("boolean",),
    int: ("integer", "number"),
    float: ("number",),
    str: ("string",),
    list: ("array",),
    dict: ("object",),
    type(None): ("null",),
}


def property_schema(schema: Mapping[str, Any] | None, key: str) -> Any:
    """Return the schema of a property, None where there is none."""
    schema = schema or {}
    found = (resolved(schema, schema, 0).get("properties") or {}).get(key)
    return found if found is not None else schema.get("additionalProperties")


def types_of(part: Any, root: Mapping[str, Any], depth: int = 0) -> set[str] | None:
    """Return the names of the types that a schema allows, None for any."""
    if not isinstance(part, Mapping) or depth > _DEPTH:
        return None
    part = resolved(part, root, depth)
    kind = part.get("type")
    if isinstance(kind, str):
        return {kind, "null"} if part.get("nullable") is True else {kind}
    if isinstance(kind, list):
        return {k for k in kind if isinstance(k, str)}
    if "const" in part or isinstance(part.get("enum"), list):
        values = [part["const"]] if "const" in part else part["enum"]
        return {name for value in values for name in _NAMES.get(type(value), ())}
    for word in ("anyOf", "oneOf"):
        if isinstance(part.get(word), list):
            found = [types_of(p, root, depth + 1) for p in part[word]]
            return None if None in found else set().union(*(f for f in found if f))
    if isinstance(part.get("allOf"), list):
        known = [t for p in part["allOf"] if (t := types_of(p, root, depth + 1)) is not None]
        return set.intersection(*known) if known else None
    return None


def is_text(schema: Mapping[str, Any] | None, key: str) -> bool:
    """Tell whether a property can be nothing but text: it is what stands there."""
    return types_of(property_schema(schema, key), schema or {}) == {"string"}


def typed(text: str, schema: Mapping[str, Any], key: str) -> Any:
    """Return the value that a text stands for: JSON of a type that the schema allows, else text."""
    allowed = types_of(property_schema(schema, key), schema)
    value = value_of(text.strip())
    if isinstance(value, str) and allowed is not None and "string" not in allowed:
        spoken = {"true": True, "false": False, "none": None, "null": None}  # Python's, or capitals
        value = spoken.get(text.strip().lower(), value)
        value = _python(text) if allowed & {"array", "object"} and value == text.strip() else value
    if allowed is None:
        return value if not isinstance(value, str) else text
    if allowed.intersection(_NAMES.get(type(value), ())):
        return value if not isinstance(value, str) else text
    if "integer" in allowed and isinstance(value, float) and value.is_integer():
        return int(value)
    return text


def _python(text: str) -> Any:
    """Return a list or dict that Python's repr has written, as templates without tojson do."""
    try:
        value = ast.literal_eval(text.strip())
        json.dumps(value, allow_nan=False)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return text
    return value if isinstance(value, (list, dict)) else text


def resolved(part: Mapping[str, Any], root: Mapping[str, Any], depth: int = 0) -> Mapping[str, Any]:
    """Follow a schema's reference inside of ``root``."""
    target = part.get("$ref")
    if not isinstance(target, str) or not target.startswith("#") or depth > _DEPTH:
        return part
    found: Any = root
    for step in target[1:].split("/")[1:]:
        step = step.replace("~1", "/").replace("~0", "~")
        found = found.get(step) if isinstance(found, Mapping) else None
    return resolved(found, root, depth + 1) if isinstance(found, Mapping) else part
