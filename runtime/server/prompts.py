"""A chat request's messages and tools to what the model's template takes, and to token ids.

Checks what templates would stumble over; tools for templates that know none are explained in the
system message. It knows no HTTP.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec

from ggq.errors import printable
from ggq.runtime.generation.conversation import encode_segments
from ggq.runtime.server.errors import APIError
from ggq.runtime.server.formats.base import Format
from ggq.runtime.server.prefill import is_continued, split_answer
from ggq.runtime.server.schema import ChatBody, Message
from ggq.runtime.server.tools import choice_of, functions_of

__all__ = ["Prompt", "Prompter", "part_text", "text_of"]

_RESERVED = {"self", "messages", "tools", "add_generation_prompt"}
_TEXT_PARTS = ("text", "input_text", "output_text", "refusal")
_EXPLAINED = (
    "You may call one or more functions to assist with the user query.\n\n"
    "You are provided with function signatures within <tools></tools> XML tags:\n<tools>\n{tools}\n"
    "</tools>\n\nFor each function call, return a json object with function name and arguments "
    "in this form:\n{example}"
)


class Prompt(msgspec.Struct):
    """Token ids, whether the model's thoughts are open at their end, and whether its answer is."""

    ids: list[int]
    text: str
    thinking: bool = False
    continued: bool = False
    begun: str = ""  # what of the answer's content is there


class Prompter:
    """Writes prompts with one model's template."""

    def __init__(self, template: Any, tokenizer: Any, form: Format):
        self._template, self._tokenizer, self._form = template, tokenizer, form
        sources = [template.source, *template.variants.values()]
        self._knows_tools = any("tools" in source for source in sources)
        self._knows_calls = any("tool_calls" in source for source in sources)
        self._knows_developer = any("developer" in source for source in sources)

    def render(self, body: ChatBody, check: Callable[[str], None] = lambda text: None) -> Prompt:
        """Return the prompt of a request; APIError or GGQError where there is none.

        ``check`` sees the text before it is made into tokens, and may refuse it.
        """
        variables = self._variables(body)
        tools = functions_of(body) if choice_of(body).mode != "none" else []
        messages = [self._message(m, i) for i, m in enumerate(body.messages)]
        if tools and not self._knows_tools:
            messages = _explain(messages, tools, self._form.example)
        begun = None
        if is_continued(body):
            messages, begun = split_answer(messages, body.messages[-1].tool_calls)
        segments = self._template.render(
            messages,
            tools=tools if tools and self._knows_tools else None,
            add_generation_prompt=body.add_generation_prompt or begun is not None,
            **variables,
        )
        text = "".join(segment.text for segment in segments)
        thinking = self._form.opens(text)
        if begun is not None:
            said, thoughts = begun["content"], begun.get("reasoning_content") or ""
            added, thinking = self._form.begun(said, thoughts, text, thinking)
            segments = [*segments, *added]
            text += "".join(segment.text for segment in added)
        check(text)
        ids = encode_segments(self._tokenizer, segments)
        content = "" if begun is None else begun["content"]
        return Prompt(ids, text, thinking, begun is not None, content)

    def _variables(self, body: ChatBody) -> dict[str, Any]:
        variables = dict(body.chat_template_kwargs or {})
        for name in variables:
            if name in _RESERVED or not name.isidentifier():
                field = "chat_template_kwargs"
                raise APIError(400, f"{field}: {name} cannot be set", field)
        if body.reasoning_effort is not None:
            variables.setdefault("reasoning_effort", body.reasoning_effort)
            if body.reasoning_effort == "none":
                variables.setdefault("enable_thinking", False)
        return variables

    def _message(self, message: Message, at: int) -> dict[str, Any]:
        where = f"messages[{at}]"
        role = "tool" if message.role == "function" else message.role
        if role == "developer" and not self._knows_developer:
            role = "system"
        said = message.refusal if message.content is None else message.content
        out: dict[str, Any] = {"role": role, "content": text_of(said, f"{where}.content")}
        if message.name is not None:
            out["name"] = message.name
        if message.tool_call_id is not None:
            out["tool_call_id"] = self._id(message.tool_call_id)
        if message.reasoning_content is not None:
            out["reasoning_content"] = message.reasoning_content
        older = [{"function": message.function_call}] if message.function_call is not None else []
        if message.tool_calls or older:
            given = [*(message.tool_calls or ()), *older]
            calls = [_call(c, f"{where}.tool_calls") for c in given]
            out["tool_calls"] = [{**c, "id": self._id(c["id"])} if "id" in c else c for c in calls]
        return out if self._knows_tools or self._knows_calls else _plain_call(out)

    def _id(self, given: str) -> str:
        """Return a call's id as the template wants it."""
        return self._form.call_id(given)


def text_of(content: Any, where: str) -> str:
    """Return a message's content as text; parts of text are joined, others are APIErrors."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise APIError(400, f"{where}: expected a text or a list of parts", _field(where))
    return "\n".join(part_text(part, f"{where}[{i}]") for i, part in enumerate(content))


def part_text(part: Any, where: str) -> str:
    """Return the text of a part of a message's content; APIError where it is another kind."""
    if isinstance(part, str):
        return part
    if not isinstance(part, dict):
        raise APIError(400, f"{where}: expected a part with a type", _field(where))
    kind, text = part.get("type", "text"), part.get("text", part.get("refusal"))
    if kind not in _TEXT_PARTS:
        message = f"{where}: only text is supported, not {printable(kind, 40)}"
        raise APIError(400, message, _field(where))
    if not isinstance(text, str):
        raise APIError(400, f"{where}.text: expected a text", _field(where))
    return text


def _field(where: str) -> str:
    """Return the request's field that a place is in."""
    return where.partition("[")[0].partition(".")[0]


def _call(call: dict[str, Any], where: str) -> dict[str, Any]:
    function = call.get("function")
    if call.get("type") == "custom" and isinstance(custom := call.get("custom"), dict):
        function = {"name": custom.get("name"), "arguments": {"input": custom.get("input", "")}}
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise APIError(400, f"{where}: expected a function with a name", "messages")
    arguments = function.get("arguments", "{}")
    if not isinstance(arguments, (str, dict)):
        raise APIError(400, f"{where}: arguments must be JSON text", "messages")
    function = {"name": function["name"], "arguments": arguments or "{}"}
    out = {"type": "function", "function": function}
    return {**out, "id": call["id"]} if isinstance(call.get("id"), str) else out


def _plain_call(message: dict[str, Any]) -> dict[str, Any]:
    """Write calls and their results as text, for templates that know neither."""
    if message["role"] == "tool":
        text = f"<tool_response>\n{message['content']}\n</tool_response>"
        return {"role": "user", "content": text}
    calls = []
    for call in message.pop("tool_calls", ()):
        function = dict(call["function"])
        if isinstance(function["arguments"], str):
            with suppress(ValueError, RecursionError):  # what is no JSON stays text
                function["arguments"] = json.loads(function["arguments"])
        text = json.dumps(function, ensure_ascii=False)
        calls.append(f"<tool_call>\n{text}\n</tool_call>")
    if calls:
        message["content"] = "\n".join(filter(None, [message["content"], *calls]))
    return message


def _explain(
    messages: list[dict[str, Any]], tools: list[dict[str, Any]], example: str
) -> list[dict[str, Any]]:
    """Add the tools' description to the system message."""
    lines = (json.dumps(tool, ensure_ascii=False) for tool in tools)
    text = _EXPLAINED.format(tools="\n".join(lines), example=example)
    if messages[0]["role"] == "system":
        first = {**messages[0], "content": f"{messages[0]['content']}\n\n{text}"}
        return [first, *messages[1:]]
    return [{"role": "system", "content": text}, *messages]
