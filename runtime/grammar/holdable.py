"""What no grammar can hold of a JSON schema, found before any work.

References that lead only back to themselves describe no value, or none that ends; and an object
whose properties may all be left out costs the grammar four places for each of them, at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["MOST_OPTIONAL", "problem", "target"]

MOST_OPTIONAL = 1000  # properties that may be left out, in the whole schema
_ALL, _ANY = ("allOf",), ("anyOf", "oneOf")
_DEPTH = 256  # of what is looked at: json.loads goes as far as Python's stack does


def problem(schema: Mapping[str, Any]) -> str | None:
    """Return what is wrong with a schema, None where a grammar can hold it."""
    optional, references = 0, {}
    for part in _parts(schema, 0):
        properties, required = part.get("properties"), part.get("required")
        if isinstance(properties, Mapping):
            optional += len(set(properties) - set(required if isinstance(required, list) else ()))
        if isinstance(part.get("$ref"), str):
            references[part["$ref"]] = target(part, schema)
    if optional > MOST_OPTIONAL:
        return (
            f"{optional:,} properties may be left out, a grammar holds {MOST_OPTIONAL:,}:"
            " name more of them as required, or leave some out"
        )
    ending: set[str] = set()
    found = True
    while found:  # until no further reference is known to have a value that ends
        news = [r for r, t in references.items() if r not in ending and _ends(t, ending, 0)]
        ending.update(news)
        found = bool(news)
    endless = next((r for r in references if r not in ending), None)
    if endless is None:
        return None
    return f"no value fits $ref {endless!r}: it asks for itself and never comes to an end"


def _parts(part: Any, depth: int) -> Iterator[Mapping[str, Any]]:
    """Yield every object in a schema, whatever word holds it."""
    if depth > _DEPTH:
        return
    if isinstance(part, Mapping):
        yield part
        for word, value in part.items():
            if word not in ("enum", "const", "default", "examples"):  # values, not schemas
                yield from _parts(value, depth + 1)
    elif isinstance(part, list):
        for value in part:
            yield from _parts(value, depth + 1)


def _ends(part: Any, ending: set[str], depth: int) -> bool:
    """Tell whether a schema may have a value that ends, given the references that do."""
    if not isinstance(part, Mapping) or depth > _DEPTH:
        return True
    needed = [part[word] for word in _ALL if isinstance(part.get(word), list)]
    parts = [p for some in needed for p in some]
    properties, required = part.get("properties"), part.get("required")
    if isinstance(properties, Mapping) and isinstance(required, list):
        parts += [
            properties[name] for name in required if isinstance(name, str) and name in properties
        ]
    if isinstance(part.get("minItems"), int) and part["minItems"] > 0:
        parts += [part["items"]] if "items" in part else []
    if isinstance(part.get("$ref"), str) and part["$ref"] not in ending:
        return False
    choices = [part[word] for word in _ANY if isinstance(part.get(word), list) and part[word]]
    return all(_ends(p, ending, depth + 1) for p in parts) and all(
        any(_ends(p, ending, depth + 1) for p in some) for some in choices
    )


def target(part: Any, root: Mapping[str, Any]) -> Any:
    """Return what a reference inside of ``root`` names; anything else as it is."""
    if not isinstance(part, Mapping) or "$ref" not in part:
        return part
    found: Any = root
    for step in str(part["$ref"]).split("/")[1:]:
        step = step.replace("~1", "/").replace("~0", "~")
        found = found.get(step) if isinstance(found, Mapping) else None
    return found
