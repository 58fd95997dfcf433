"""POST /v1/responses, without state: OpenAI's newer interface, read into a chat request."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response

from ggq.errors import printable
from ggq.runtime.formats.base import CALL, CONTENT, REASONING, Delta
from ggq.runtime.server.chat import ChatRun
from ggq.runtime.server.contents import content_of
from ggq.runtime.server.errors import APIError, fields_named
from ggq.runtime.server.http import answer_json, client_of, note, read, service_of
from ggq.runtime.server.schema import ChatBody, Message, Tokens, Truncation
from ggq.runtime.server.service import new_id
from ggq.runtime.server.streaming import EventStream, event, reported, while_connected
from ggq.runtime.server.tools import skipped_tools

__all__ = ["ResponsesBody", "responses"]


class ResponsesBody(msgspec.Struct, kw_only=True):
    """POST /v1/responses."""

    input: str | Annotated[list[dict[str, Any]], Meta(min_length=1, max_length=100_000)]
    model: str | None = None
    instructions: str | None = None
    tools: Annotated[list[dict[str, Any]], Meta(max_length=512)] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    max_output_tokens: Tokens | None = None
    temperature: float | int | None = None
    top_p: float | int | None = None
    stream: bool | None = None
    text: dict[str, Any] | None = None
    reasoning: dict[str, Any] | None = None
    previous_response_id: str | None = None
    conversation: Any = None
    prompt: Any = None
    background: bool | None = None
    metadata: dict[str, Any] | None = None
    truncation: Truncation | None = None
    user: Annotated[str, Meta(max_length=512)] | None = None


async def responses(request: Request) -> Response:
    """Answer POST /v1/responses."""
    body = await read(request, ResponsesBody)
    service = await service_of(request, body.model)
    chat = as_chat(body)
    note(request, *skipped_tools(chat), *_unused(body))
    with fields_named(_NAMES):
        run = await ChatRun.start(service, chat, client_of(request))
    note(request, *run.notes)
    writer = _Writer(run, body, body.model or service.settings.model_id)
    if body.stream:
        chunks = _stream(run, writer)
        return EventStream(chunks, run.answers.cancel, service.settings.ping_seconds, _failure)
    try:
        await while_connected(request, _collect(run, writer))
    finally:
        run.answers.cancel()
    return answer_json(writer.response())


def as_chat(body: ResponsesBody) -> ChatBody:
    """Return the chat request that asks for the same."""
    for name in ("previous_response_id", "conversation", "prompt", "background"):
        if getattr(body, name):
            message = f"{name}: nothing is kept here, send the whole input"
            raise APIError(400, message, name)
    messages = [Message("system", body.instructions)] if body.instructions else []
    items = body.input
    items = [{"role": "user", "content": items}] if isinstance(items, str) else items
    for i, item in enumerate(items):
        _add_item(messages, item, f"input[{i}]")
    if not messages:
        raise APIError(400, "input: holds no message", "input")
    effort = (body.reasoning or {}).get("effort")
    if not isinstance(effort, str | None):
        raise APIError(400, "reasoning.effort: expected a text", "reasoning")
    if body.max_output_tokens == 0:
        raise APIError(400, "max_output_tokens: must be at least 1", "max_output_tokens")
    return ChatBody(
        messages=messages,
        model=body.model,
        tools=[_tool(tool) for tool in body.tools or ()] or None,
        tool_choice=body.tool_choice,
        parallel_tool_calls=body.parallel_tool_calls,
        max_completion_tokens=body.max_output_tokens,
        temperature=body.temperature,
        top_p=body.top_p,
        response_format=_format(body.text),
        reasoning_effort=effort,
        user=body.user,
        truncation=body.truncation,
    )


_NAMES = {  # fields of a chat request, as this interface has them
    r"messages\b": "input",
    r"response_format(\.json_schema)?\b": "text.format",
    r"max_completion_tokens\b": "max_output_tokens",
    r"(tools\[\d+\])\.function\b": r"\1",
}
# Items of earlier turns that call tools, and how each says what it calls.
_CALLS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "function_call": lambda i: {"name": i.get("name"), "arguments": i.get("arguments", "{}")},
    "custom_tool_call": lambda i: {
        "name": i.get("name"), "arguments": {"input": i.get("input", "")}
    },
    "local_shell_call": lambda i: {
        "name": "local_shell", "arguments": i.get("action") or {}
    },
}  # fmt: skip
_RESULTS = ("function_call_output", "custom_tool_call_output", "local_shell_call_output")
# Thoughts of earlier turns, as templates leave them out, and what the service did by itself.
_LEFT_OUT = (
    "reasoning", "web_search_call", "file_search_call", "code_interpreter_call",
    "image_generation_call", "mcp_list_tools",
)  # fmt: skip


def _unused(body: ResponsesBody) -> list[str]:
    """Return notes on what a request says without effect."""
    items = body.input if isinstance(body.input, list) else []
    kinds = {item.get("type") for item in items} & set(_LEFT_OUT[1:])
    found = [f"input: left out: {kind}" for kind in sorted(map(str, kinds))]
    inside = {"text": (body.text, {"format"}), "reasoning": (body.reasoning, {"effort"})}
    for name, (given, known) in inside.items():
        found += [f"without effect: {name}.{key}" for key in sorted(set(given or ()) - known)]
    return found


def _add_item(messages: list[Message], item: dict[str, Any], where: str) -> None:
    kind = item.get("type") or "message"
    if not isinstance(kind, str):
        raise APIError(400, f"{where}.type: expected a name", "input")
    last = messages[-1] if messages else None
    if kind == "message":
        role, content = item.get("role"), item.get("content")
        if not isinstance(role, str) or not role or content is None:
            raise APIError(400, f"{where}: expected a message with role and content", "input")
        messages.append(Message(role, content_of(content, f"{where}.content")))
    elif kind in _CALLS:
        function = _CALLS[kind](item)
        if not isinstance(function["name"], str):
            raise APIError(400, f"{where}.name: expected a text", "input")
        if not isinstance(function["arguments"], (str, dict)):
            raise APIError(400, f"{where}: expected what the call says as text", "input")
        call = {"id": item.get("call_id"), "type": "function", "function": function}
        if last is None or last.role != "assistant":
            messages.append(Message("assistant", None, tool_calls=[call]))
        else:
            last.tool_calls = [*(last.tool_calls or ()), call]
    elif kind in _RESULTS:
        output, call_id = item.get("output"), item.get("call_id")
        if output is None or not isinstance(call_id, str):
            raise APIError(400, f"{where}: expected call_id and output", "input")
        said = content_of(output, f"{where}.output")
        messages.append(Message("tool", said, tool_call_id=call_id))
    elif kind not in _LEFT_OUT:
        message = f"{where}.type: {printable(kind, 40)} is not supported"
        raise APIError(400, message, "input")


def _tool(tool: dict[str, Any]) -> dict[str, Any]:
    """Return a function in the nested form of chat requests, other tools as they are."""
    if "function" in tool or tool.get("type", "function") != "function":
        return tool
    function = {k: v for k, v in tool.items() if k != "type"}
    return {"type": tool.get("type", "function"), "function": function}


def _format(text: dict[str, Any] | None) -> dict[str, Any] | None:
    form = (text or {}).get("format")
    if form is None:
        return None
    if not isinstance(form, dict):
        raise APIError(400, "text.format: expected an object", "text")
    if form.get("type") == "json_schema" and "json_schema" not in form:
        return {"type": "json_schema", "json_schema": form}
    return form


class _Writer:
    """The response object while it grows, and the events that tell of it."""

    def __init__(self, run: ChatRun, body: ResponsesBody, model: str) -> None:
        self._run, self._body, self._model = run, body, model
        self._id, self._created = new_id("resp_"), int(time.time())
        self._number = -1
        self._status = "in_progress"
        self._reason: str | None = None
        self.output: list[dict[str, Any]] = []
        self._open: str | None = None

    def response(self) -> dict[str, Any]:
        """Return the whole object."""
        body, answers = self._body, self._run.answers
        done, usage = self._status != "in_progress", answers.usage()
        return {
            "id": self._id,
            "object": "response",
            "created_at": self._created,
            "status": self._status,
            "error": None,
            "incomplete_details": {"reason": self._reason} if self._reason else None,
            "instructions": body.instructions,
            "max_output_tokens": body.max_output_tokens,
            "model": self._model,
            "output": self.output,
            "parallel_tool_calls": body.parallel_tool_calls is not False,
            "previous_response_id": None,
            "reasoning": {"effort": (body.reasoning or {}).get("effort"), "summary": None},
            "store": False,
            "temperature": body.temperature,
            "text": body.text or {"format": {"type": "text"}},
            "tool_choice": body.tool_choice or "auto",
            "tools": body.tools or [],
            "top_p": body.top_p,
            "truncation": body.truncation or "disabled",
            "usage": {
                "input_tokens": usage["prompt_tokens"],
                "input_tokens_details": usage["prompt_tokens_details"],
                "output_tokens": usage["completion_tokens"],
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": usage["total_tokens"],
            }
            if done
            else None,
            "user": body.user,
            "metadata": body.metadata or {},
        }

    def whole(self, kind: str) -> dict[str, Any]:
        """Return an event that carries the response: created, in_progress, completed, ..."""
        return self._event(f"response.{kind}", response=self.response())

    def add(self, delta: Delta) -> list[dict[str, Any]]:
        """Return the events of a delta."""
        if delta.kind == CALL:
            return self._call(delta)
        out = [] if self._open == delta.kind else self.close() + self._begin(delta.kind)
        item = self.output[-1]
        item["content"][0]["text"] += delta.text
        name = "output_text" if delta.kind == CONTENT else "reasoning_text"
        extra: dict[str, Any] = {"logprobs": []} if delta.kind == CONTENT else {}
        out.append(self._part(f"response.{name}.delta", delta=delta.text, **extra))
        return out

    def close(self) -> list[dict[str, Any]]:
        """Return the events that end the item in work, if there is one."""
        if self._open is None:
            return []
        item, kind = self.output[-1], self._open
        self._open, item["status"] = None, "completed"
        if kind == CALL:
            done = {"arguments": item["arguments"], "name": item["name"]}
            return [self._arguments("done", **done), self._item("done")]
        part = item["content"][0]
        name = "output_text" if kind == CONTENT else "reasoning_text"
        extra: dict[str, Any] = {"logprobs": []} if kind == CONTENT else {}
        return [
            self._part(f"response.{name}.done", text=part["text"], **extra),
            self._part("response.content_part.done", part=part),
            self._item("done"),
        ]

    def finish(self, reason: str | None) -> list[dict[str, Any]]:
        """Return the last events."""
        out = self.close()
        cut = reason == "length"
        self._status = "incomplete" if cut else "completed"
        self._reason = "max_output_tokens" if cut else None
        return [*out, self.whole(self._status)]

    def _begin(self, kind: str) -> list[dict[str, Any]]:
        self._open = kind
        if kind == REASONING:
            item = {"id": new_id("rs_"), "type": "reasoning", "summary": []}
            part: dict[str, Any] = {"type": "reasoning_text", "text": ""}
        else:
            item = {"id": new_id("msg_"), "type": "message", "role": "assistant"}
            part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
        self.output.append({**item, "status": "in_progress", "content": []})
        out = [self._item("added")]
        self.output[-1]["content"].append(part)
        return [*out, self._part("response.content_part.added", part=dict(part))]

    def _call(self, delta: Delta) -> list[dict[str, Any]]:
        out, text = [], delta.text
        if delta.call is not None:
            out, text = self.close(), delta.call.arguments + text
            self._open = CALL
            item = {
                "id": new_id("fc_"),
                "type": "function_call",
                "call_id": f"call_{delta.id}",
                "name": delta.call.name,
                "arguments": "",
                "status": "in_progress",
            }
            self.output.append(item)
            out.append(self._item("added"))
        if text:
            self.output[-1]["arguments"] += text
            out.append(self._arguments("delta", delta=text))
        return out

    def _arguments(self, what: str, **more: Any) -> dict[str, Any]:
        where = {"item_id": self.output[-1]["id"], "output_index": len(self.output) - 1}
        return self._event(f"response.function_call_arguments.{what}", **where, **more)

    def _item(self, what: str) -> dict[str, Any]:
        item = dict(self.output[-1])  # a copy: the item goes on growing
        if "content" in item:
            item["content"] = [dict(part) for part in item["content"]]
        at = len(self.output) - 1
        return self._event(f"response.output_item.{what}", output_index=at, item=item)

    def _part(self, name: str, **more: Any) -> dict[str, Any]:
        at = {"item_id": self.output[-1]["id"], "output_index": len(self.output) - 1}
        return self._event(name, **at, content_index=0, **more)

    def _event(self, name: str, /, **more: Any) -> dict[str, Any]:
        self._number += 1
        return {"type": name, "sequence_number": self._number, **more}


async def _events(run: ChatRun, writer: _Writer) -> AsyncIterator[dict[str, Any]]:
    async for choice, deltas, piece in run.deltas():
        for delta in deltas:
            for found in writer.add(delta):
                yield found
        if piece.finish_reason:
            for found in writer.finish(run.reason(choice, piece)):
                yield found


async def _stream(run: ChatRun, writer: _Writer) -> AsyncIterator[bytes]:
    yield event(writer.whole("created"))
    yield event(writer.whole("in_progress"))
    async for found in _events(run, writer):
        yield event(found)


async def _collect(run: ChatRun, writer: _Writer) -> None:
    async for _ in _events(run, writer):
        pass


def _failure(error: Exception) -> bytes:
    found = reported(error)
    return event({"type": "error", "code": str(found.code or found.status),
                  "message": found.message, "param": found.param})  # fmt: skip
