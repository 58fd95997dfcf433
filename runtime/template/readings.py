"""Other ways to say the same conversation, for templates that refuse it as it is.

It knows messages, not templates: whoever renders tries one after another until one is taken.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from ggq.runtime.template.text import Text

__all__ = ["readings"]

Messages = list[dict[str, Any]]
_SYSTEM = ("system", "developer")
_JOINED = ("user", "assistant")


class _Arguments(dict[str, Any]):
    """Tool arguments that came as JSON text: an object to a template, JSON when printed."""

    def __str__(self) -> str:
        return json.dumps(self, ensure_ascii=False)


def readings(messages: Messages) -> Iterator[Messages]:
    """Yield the messages as most templates want them, then as some others do.

    Tool arguments are an object, else JSON text. Instructions stand in one message at the head,
    else in the first user message (Gemma 2 and some Mistral templates refuse the role); users and
    assistants alternate; of parallel calls each stands with its result. Nothing said is left out.
    """
    forms: list[Callable[[Any], Any]] = [_as_object]
    if any(message.get("tool_calls") for message in messages):
        forms += [_as_text, _as_object_always]
    for shape in _shapes(messages):
        for form in forms:
            yield _with_arguments(shape, form)


def _shapes(messages: Messages) -> Iterator[Messages]:
    first = _instructions_first(messages)
    joined = _alternating(first)
    single = _one_call_each(joined)
    shapes = [messages, _with_text(messages), first, _instructions_in_user(first)]
    shapes += [
        joined,
        _instructions_in_user(joined),
        single,
        _alternating(_instructions_in_user(single)),
    ]
    shapes.append(_user_first(_users_in_results(shapes[-1])))
    for i, shape in enumerate(shapes):
        if shape not in shapes[:i]:
            yield shape


def _with_text(messages: Messages) -> Messages:
    """Let who says nothing, as beside a call, say an empty text: some templates measure it."""
    return [{**m, "content": ""} if m.get("content") is None else m for m in messages]


def _instructions_first(messages: Messages) -> Messages:
    """Put what systems and developers say into one message before all others."""
    said = [message for message in messages if message["role"] in _SYSTEM]
    if not said:
        return messages
    head = next((m for m in said if m["role"] == "system"), said[0])
    content = said[0].get("content")
    for message in said[1:]:
        content = _together(content, message.get("content"))
    rest = [message for message in messages if message["role"] not in _SYSTEM]
    return [{**head, "content": content}, *rest]


def _instructions_in_user(messages: Messages) -> Messages:
    """Put a first message of instructions at the head of the first user message."""
    if not messages or messages[0]["role"] not in _SYSTEM:
        return messages
    head, rest = messages[0], messages[1:]
    user = {"role": Text.own("user"), "content": head.get("content")}
    if not rest or rest[0]["role"] != "user":
        return [user, *rest]
    content = _together(head.get("content"), rest[0].get("content"))
    return [{**rest[0], "content": content}, *rest[1:]]


def _alternating(messages: Messages) -> Messages:
    """Join neighbours of one role; calls and their results stay as they are."""
    out: Messages = []
    for message in messages:
        last = out[-1] if out else {"role": None}
        same = message["role"] == last["role"] and message["role"] in _JOINED
        if same and not last.get("tool_calls"):
            content = _together(last.get("content"), message.get("content"))
            out[-1] = {**last, **message, "content": content}
        else:
            out.append(message)
    return out


def _users_in_results(messages: Messages) -> Messages:
    """Put what a user says right after a tool's result into that result."""
    out: Messages = []
    for message in messages:
        if message["role"] == "user" and out and out[-1]["role"] == "tool":
            content = _together(out[-1].get("content"), message.get("content"))
            out[-1] = {**out[-1], "content": content}
        else:
            out.append(message)
    return out


def _user_first(messages: Messages) -> Messages:
    """Let a user who says nothing go before an assistant who speaks first."""
    at = next((i for i, m in enumerate(messages) if m["role"] not in _SYSTEM), len(messages))
    if at == len(messages) or messages[at]["role"] != "assistant":
        return messages
    return [*messages[:at], {"role": Text.own("user"), "content": ""}, *messages[at:]]


def _one_call_each(messages: Messages) -> Messages:
    """Split parallel calls: each with its result after it, in the order of the calls."""
    out: Messages = []
    at = 0
    while at < len(messages):
        message, at = messages[at], at + 1
        calls = message.get("tool_calls")
        if not isinstance(calls, list) or len(calls) < 2:
            out.append(message)
            continue
        end = at
        while end < len(messages) and messages[end]["role"] == "tool":
            end += 1
        results, at = messages[at:end], end
        for i, call in enumerate(calls):
            content = message.get("content") if i == 0 else ""
            out.append({**message, "content": content, "tool_calls": [call]})
            found = [r for r in results if isinstance(call, dict) and _answers(r, call)]
            found = found or results[:1]
            out += found[:1]
            results = [r for r in results if r is not (found[0] if found else None)]
        out += results
    return out


def _answers(result: dict[str, Any], call: dict[str, Any]) -> bool:
    return call.get("id") is not None and result.get("tool_call_id") == call["id"]


def _together(a: Any, b: Any) -> Any:
    """Return two contents as one: texts with a blank line between, lists of parts in a row."""
    if not a or not b:
        return a or b
    if isinstance(a, str) and isinstance(b, str):
        return f"{a}\n\n{b}"
    parts = ([{"type": "text", "text": c}] if isinstance(c, str) else list(c) for c in (a, b))
    return [part for content in parts for part in content]


def _with_arguments(messages: Messages, form: Callable[[Any], Any]) -> Messages:
    return [
        {**message, "tool_calls": [_with_call(call, form) for call in message["tool_calls"]]}
        if isinstance(message.get("tool_calls"), list)
        else message
        for message in messages
    ]


def _with_call(call: Any, form: Callable[[Any], Any]) -> Any:
    if not isinstance(call, dict):
        return call
    if isinstance(call.get("function"), dict):
        return {**call, "function": _with_call(call["function"], form)}
    return {**call, "arguments": form(call["arguments"])} if "arguments" in call else call


def _as_object(arguments: Any) -> Any:
    """Return arguments in JSON as an object, those that are none, cut off perhaps, as the text."""
    if not isinstance(arguments, str):
        return arguments
    try:
        parsed = json.loads(arguments)
    except (ValueError, RecursionError):
        return arguments
    return _Arguments(parsed) if isinstance(parsed, dict) else arguments


def _as_text(arguments: Any) -> Any:
    return json.dumps(arguments, ensure_ascii=False) if isinstance(arguments, dict) else arguments


def _as_object_always(arguments: Any) -> Any:
    """Return an object in any case: arguments that are no JSON are one text in it."""
    found = _as_object(arguments)
    return _Arguments(arguments=found) if isinstance(found, str) else found
