"""What a chat request says of tools: the functions it offers, which may be called, which must be.

It knows OpenAI's words for it, the older ones too; other interfaces are read into these.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from types import NoneType
from typing import Any

from ggq.runtime.server.errors import APIError
from ggq.runtime.server.schema import ChatBody

__all__ = ["Choice", "choice_of", "functions_of", "offered_tools", "skipped_tools"]

_FUNCTION_NAME = re.compile(r"[A-Za-z0-9_.\-]{1,128}")
_MODES = {"none": "none", "auto": "auto", "required": "required", "any": "required"}


@dataclass(frozen=True)
class Choice:
    """``mode``: none, auto, required or named; ``names``: what may be called, None for all."""

    mode: str = "auto"
    names: frozenset[str] | None = None


def choice_of(body: Any) -> Choice:
    """Read tool_choice, or the older function_call; APIError where it is neither known form."""
    field = "tool_choice"
    choice = getattr(body, field, None)
    if choice is None and getattr(body, "functions", None):
        choice, field = body.function_call, "function_call"
    if choice is None:
        return Choice()
    kind = choice.get("type") if isinstance(choice, dict) else choice
    if isinstance(kind, str) and kind in _MODES:
        return Choice(_MODES[kind])
    if not isinstance(choice, dict):
        raise APIError(400, f"{field}: expected none, auto, required or a function", field)
    if kind == "allowed_tools":
        inner = choice.get("allowed_tools")
        inner = inner if isinstance(inner, dict) else choice
        named = [_name(tool) for tool in inner.get("tools") or () if isinstance(tool, dict)]
        mode = _MODES.get(str(inner.get("mode", "auto")))
        if mode is None or not named:
            raise APIError(400, f"{field}: expected a mode and the tools allowed", field)
        return Choice(mode, frozenset(name for name in named if isinstance(name, str)))
    name = _name(choice)
    if not isinstance(name, str):
        raise APIError(400, f"{field}: names no function of tools", field)
    return Choice("named", frozenset({name}))


def _name(choice: dict[str, Any]) -> Any:
    function = choice.get("function", choice)
    return function.get("name") if isinstance(function, dict) else None


def functions_of(body: ChatBody) -> list[dict[str, Any]]:
    """Return a request's functions in OpenAI's nested form, checked; not its other tools."""
    found: list[dict[str, Any]] = []
    given = [("tools", tool) for tool in body.tools or ()]
    older = [("functions", {"function": function}) for function in body.functions or ()]
    for i, (field, tool) in enumerate([*given, *older]):
        where = f"{field}[{i - len(given) if field == 'functions' else i}]"
        if not isinstance(_kind(tool), str):
            raise APIError(400, f"{where}.type: expected a name", field)
        if _kind(tool) != "function":
            continue
        function = tool.get("function")
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise APIError(400, f"{where}.function: expected an object with a name", field)
        if not _FUNCTION_NAME.fullmatch(function["name"]):
            message = f"{where}.function.name: up to 128 letters, digits, _ - and . are allowed"
            raise APIError(400, message, field)
        parameters = function.get("parameters")
        if parameters is not None and not isinstance(parameters, dict):
            raise APIError(400, f"{where}.function.parameters: expected a JSON schema", field)
        for name, kind in (("description", str), ("strict", bool)):
            if not isinstance(function.get(name), (kind, NoneType)):
                what = "a text" if kind is str else "true or false"
                raise APIError(400, f"{where}.function.{name}: expected {what}", field)
        if any(other["function"]["name"] == function["name"] for other in found):
            message = f"{where}.function.name: {function['name']} is there already"
            raise APIError(400, message, field)
        found.append({**tool, "type": "function"})
    return found


def skipped_tools(body: ChatBody) -> list[str]:
    """Return a note on each tool that is no function: nothing here could run it."""
    kinds = [(i, _kind(tool)) for i, tool in enumerate(body.tools or ())]
    other = [(i, kind) for i, kind in kinds if isinstance(kind, str) and kind != "function"]
    return [f"tools[{i}] skipped: {kind} is no function" for i, kind in other]


def _kind(tool: dict[str, Any]) -> Any:
    kind = tool.get("type")
    return "function" if kind is None else kind


def offered_tools(body: ChatBody) -> list[dict[str, Any]]:
    """Return the functions that may be called; APIError where the choice names none of them."""
    choice, found = choice_of(body), functions_of(body)
    if choice.mode == "none":
        return []
    if choice.mode == "required" and not found:
        raise APIError(400, "tool_choice: required, but there are no tools", "tool_choice")
    if choice.names is None:
        return found
    allowed = [tool for tool in found if tool["function"]["name"] in choice.names]
    if not allowed:
        raise APIError(400, "tool_choice: names no function of tools", "tool_choice")
    return allowed
