"""POST /v1/messages and its count_tokens: Anthropic's interface, read into a chat request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response

from ggq.runtime.formats.base import CALL, CONTENT, REASONING, Delta
from ggq.runtime.generation.answer import Piece
from ggq.runtime.server.chat import ChatRun
from ggq.runtime.server.contents import content_of, joined, part_of, text_of
from ggq.runtime.server.errors import APIError, fields_named
from ggq.runtime.server.http import answer_json, client_of, note, read, service_of
from ggq.runtime.server.schema import ChatBody, Message, Stops
from ggq.runtime.server.service import new_id
from ggq.runtime.server.streaming import EventStream, event, reported, while_connected
from ggq.runtime.server.tools import skipped_tools

__all__ = ["count_tokens", "messages"]

Blocks = str | list[dict[str, Any]]

_THINKING = ("enabled", "disabled", "adaptive")
_THINKING_FIELDS = {"type", "budget_tokens"}
_BLOCKS = {  # what is read of each kind of block; the signature of thoughts is for its service
    kind: frozenset(names.split())
    for kind, names in {
        "text": "type text",
        "image": "type source",
        "tool_use": "type id name input",
        "tool_result": "type tool_use_id content",
        "thinking": "type thinking signature",
    }.items()
}
_TOOL = {"type", "name", "description", "input_schema", "strict"}
_NAMES = {  # fields of a chat request, as this interface has them
    r"response_format(\.json_schema)?\b": "output_config.format",
    r"(tools\[\d+\])\.function\.parameters\b": r"\1.input_schema",
    r"(tools\[\d+\])\.function\b": r"\1",
}


class Turn(msgspec.Struct):
    """One message."""

    role: Annotated[str, Meta(pattern="^(user|assistant|system)$")]
    content: Blocks


class CountBody(msgspec.Struct, kw_only=True):
    """POST /v1/messages/count_tokens."""

    messages: Annotated[list[Turn], Meta(min_length=1, max_length=100_000)]
    model: str | None = None
    system: Blocks | None = None
    tools: Annotated[list[dict[str, Any]], Meta(max_length=512)] | None = None
    tool_choice: dict[str, Any] | None = None
    thinking: dict[str, Any] | None = None


class MessagesBody(CountBody, kw_only=True):
    """POST /v1/messages."""

    max_tokens: Annotated[int, Meta(ge=1, le=2**31 - 1)]
    temperature: float | int | None = None
    top_p: float | int | None = None
    top_k: int | None = None
    stop_sequences: Stops | None = None
    stream: bool | None = None
    metadata: dict[str, Any] | None = None
    output_config: dict[str, Any] | None = None
    output_format: dict[str, Any] | None = None  # as the interface had it first


async def messages(request: Request) -> Response:
    """Answer POST /v1/messages."""
    body = await read(request, MessagesBody)
    service = await service_of(request, body.model)
    chat = as_chat(body)
    chat.max_tokens, chat.stop = body.max_tokens, body.stop_sequences
    chat.temperature, chat.top_p, chat.top_k = body.temperature, body.top_p, body.top_k
    chat.response_format = _format(body)
    note(request, *skipped_tools(chat))
    note(request, *_unused(body))
    user = (body.metadata or {}).get("user_id")
    if not isinstance(user, str | None):
        raise APIError(400, "metadata.user_id: expected a text", "metadata")
    chat.user = user and user[:512]
    with fields_named(_NAMES):
        run = await ChatRun.start(service, chat, client_of(request))
    writer = _Writer(run, body, body.model or service.settings.model_id)
    if body.stream:
        chunks = _stream(run, writer)
        return EventStream(chunks, run.answers.cancel, service.settings.ping_seconds, _failure)
    try:
        await while_connected(request, _collect(run, writer))
    finally:
        run.answers.cancel()
    return answer_json(writer.message())


async def count_tokens(request: Request) -> Response:
    """Answer POST /v1/messages/count_tokens."""
    body = await read(request, CountBody)
    service = await service_of(request, body.model)
    with fields_named(_NAMES):
        prompt = await asyncio.to_thread(service.prompter.render, as_chat(body))
    return answer_json({"input_tokens": len(prompt.ids)})


def as_chat(body: CountBody) -> ChatBody:
    """Return the chat request that asks for the same."""
    turns = [Message("system", text_of(body.system, "system"))] if body.system else []
    for i, turn in enumerate(body.messages):
        turns += _turn(turn, f"messages[{i}].content")
    tools = [_tool(tool, i) for i, tool in enumerate(body.tools or ())]
    choice = {"type": "auto"} if body.tool_choice is None else body.tool_choice
    kinds = {"auto": "auto", "any": "required", "none": "none"}
    kind = choice.get("type")
    if kind == "tool":
        chosen: Any = {"type": "function", "function": {"name": choice.get("name")}}
    elif isinstance(kind, str) and kind in kinds:
        chosen = kinds[kind]
    else:
        raise APIError(400, "tool_choice.type: expected auto, any, tool or none", "tool_choice")
    options = {}
    if body.thinking is not None:
        kind = body.thinking.get("type")
        if kind not in _THINKING:
            message = f"thinking.type: expected {' or '.join(_THINKING)}"
            raise APIError(400, message, "thinking")
        options["enable_thinking"] = kind != "disabled"
    budget = (body.thinking or {}).get("budget_tokens") if options.get("enable_thinking") else None
    if budget is not None and (type(budget) is not int or not 1 <= budget < 1 << 31):
        message = "thinking.budget_tokens: expected a number of tokens from 1"
        raise APIError(400, message, "thinking")
    single = choice.get("disable_parallel_tool_use") is True
    return ChatBody(
        messages=turns,
        tools=tools or None,
        tool_choice=chosen,
        parallel_tool_calls=False if single else None,
        chat_template_kwargs=options or None,
        thinking_budget_tokens=budget,
    )


def _turn(turn: Turn, where: str) -> list[Message]:
    """Return a turn as chat messages: results of tools are messages of their own."""
    if isinstance(turn.content, str):
        return [Message(turn.role, turn.content)]
    out, calls, thoughts = [], [], []
    parts = list[Any]()
    for i, block in enumerate(turn.content):
        kind, here = block.get("type"), f"{where}[{i}]"
        if kind == "tool_result":
            call_id = block.get("tool_use_id")
            if not isinstance(call_id, str):
                raise APIError(400, f"{here}.tool_use_id: is missing", "messages")
            result = content_of(block.get("content"), f"{here}.content")
            out.append(Message("tool", result, tool_call_id=call_id))
        elif kind == "tool_use":
            arguments = block.get("input")
            for name in ("id", "name"):
                if not isinstance(block.get(name), str):
                    raise APIError(400, f"{here}.{name}: expected a text", "messages")
            if not isinstance(arguments, dict):
                raise APIError(400, f"{here}.input: expected an object", "messages")
            function = {"name": block.get("name"), "arguments": arguments}
            calls.append({"id": block.get("id"), "type": "function", "function": function})
        elif kind == "thinking" and isinstance(block.get("thinking"), str):
            thoughts.append(block["thinking"])
        elif kind != "redacted_thinking":
            parts.append(part_of(block, here))
    if parts or calls or not out:
        message = Message(turn.role, joined(parts), tool_calls=calls or None)
        message.reasoning_content = "\n".join(thoughts) or None
        out.append(message)
    return out


def _unused(body: MessagesBody) -> list[str]:
    """Return notes on what a request says without effect, inside of its fields."""
    turns = [turn.content for turn in body.messages] + [body.system or []]
    blocks = [block for content in turns if isinstance(content, list) for block in content]
    found = {f"{b.get('type', 'text')}.{n}" for b in blocks for n in b.keys() - _block(b)}
    found |= {f"tools.{n}" for tool in body.tools or () for n in tool.keys() - _TOOL}
    found |= {f"metadata.{name}" for name in (body.metadata or {}).keys() - {"user_id"}}
    found |= {f"thinking.{name}" for name in (body.thinking or {}).keys() - _THINKING_FIELDS}
    found |= {f"output_config.{name}" for name in (body.output_config or {}).keys() - {"format"}}
    return [f"without effect: {', '.join(sorted(found))}"] if found else []


def _block(block: dict[str, Any]) -> frozenset[str]:
    """Return what is read of a block of that kind."""
    return _BLOCKS.get(str(block.get("type", "text")), frozenset(block))


def _format(body: MessagesBody) -> dict[str, Any] | None:
    """Return the response_format that output_config asks for."""
    config = body.output_config or {}
    form = config.get("format", body.output_format)
    if form is None:
        return None
    if not isinstance(form, dict) or form.get("type") != "json_schema":
        message = "output_config.format.type: expected json_schema"
        raise APIError(400, message, "output_config")
    return {"type": "json_schema", "json_schema": {"schema": form.get("schema")}}


def _tool(tool: dict[str, Any], at: int) -> dict[str, Any]:
    if tool.get("type") not in (None, "custom"):
        return {"type": tool["type"]}  # the service's own: web_search_..., bash_..., computer_...
    if not isinstance(tool.get("name"), str):
        raise APIError(400, f"tools[{at}].name: is missing", "tools")
    function = {"name": tool["name"], "parameters": tool.get("input_schema")}
    more = {name: tool[name] for name in ("description", "strict") if tool.get(name) is not None}
    return {"type": "function", "function": {**function, **more}}


class _Writer:
    """The message while it grows, and the events that tell of it."""

    def __init__(self, run: ChatRun, body: MessagesBody, model: str) -> None:
        self._run, self._body, self._model = run, body, model
        self._id = new_id("msg_")
        self._content: list[dict[str, Any]] = []
        self._open: str | None = None
        self._arguments: list[str] = []  # of the call in work
        self._stop_reason: str | None = None
        self._stop_sequence: str | None = None

    def message(self) -> dict[str, Any]:
        """Return the whole message."""
        usage = self._run.answers.usage()
        cached = usage["prompt_tokens_details"]["cached_tokens"]
        return {
            "id": self._id,
            "type": "message",
            "role": "assistant",
            "model": self._model,
            "content": self._content,
            "stop_reason": self._stop_reason,
            "stop_sequence": self._stop_sequence,
            "usage": {
                "input_tokens": usage["prompt_tokens"] - cached,
                "cache_creation_input_tokens": 0,
                "cache_read_input_tokens": cached,
                "output_tokens": usage["completion_tokens"],
            },
        }

    def add(self, delta: Delta) -> list[dict[str, Any]]:
        """Return the events of a delta."""
        if delta.kind == CALL:
            return self._call(delta)
        name = "text" if delta.kind == CONTENT else "thinking"
        out = []
        if self._open != delta.kind:
            out = self.close()
            self._open = delta.kind
            block = {"type": name, name: ""}
            if delta.kind == REASONING:
                block["signature"] = ""
            out.append(self._begin(block))
        self._content[-1][name] += delta.text
        return [*out, self._delta({"type": f"{name}_delta", name: delta.text})]

    def close(self) -> list[dict[str, Any]]:
        """Return the event that ends the block in work, if there is one."""
        if self._open is None:
            return []
        if self._open == CALL:
            self._content[-1]["input"] = _input("".join(self._arguments))
        self._open = None
        return [{"type": "content_block_stop", "index": len(self._content) - 1}]

    def finish(self, reason: str | None, piece: Piece) -> list[dict[str, Any]]:
        """Return the last events."""
        reasons = {"length": "max_tokens", "tool_calls": "tool_use"}
        self._stop_reason = reasons.get(reason or "", "end_turn")
        if piece.stop is not None:
            self._stop_reason, self._stop_sequence = "stop_sequence", piece.stop
        message = self.message()
        end = {"stop_reason": self._stop_reason, "stop_sequence": self._stop_sequence}
        return [
            *self.close(),
            {"type": "message_delta", "delta": end, "usage": message["usage"]},
            {"type": "message_stop"},
        ]

    def _call(self, delta: Delta) -> list[dict[str, Any]]:
        out, text = [], delta.text
        if delta.call is not None:
            out, text = self.close(), delta.call.arguments + text
            self._open, self._arguments = CALL, []
            block = {"type": "tool_use", "id": f"toolu_{delta.id}", "name": delta.call.name}
            out.append(self._begin({**block, "input": {}}))
        if text:
            self._arguments.append(text)
            out.append(self._delta({"type": "input_json_delta", "partial_json": text}))
        return out

    def _begin(self, block: dict[str, Any]) -> dict[str, Any]:
        self._content.append(block)
        at = len(self._content) - 1
        return {"type": "content_block_start", "index": at, "content_block": dict(block)}

    def _delta(self, delta: dict[str, Any]) -> dict[str, Any]:
        at = len(self._content) - 1
        return {"type": "content_block_delta", "index": at, "delta": delta}


async def _events(run: ChatRun, writer: _Writer) -> AsyncIterator[dict[str, Any]]:
    async for choice, deltas, piece in run.deltas():
        for delta in deltas:
            for found in writer.add(delta):
                yield found
        if piece.finish_reason:
            for found in writer.finish(run.reason(choice, piece), piece):
                yield found


async def _stream(run: ChatRun, writer: _Writer) -> AsyncIterator[bytes]:
    yield event({"type": "message_start", "message": writer.message()})
    yield event({"type": "ping"})
    async for found in _events(run, writer):
        yield event(found)


async def _collect(run: ChatRun, writer: _Writer) -> None:
    async for _ in _events(run, writer):
        pass


def _input(arguments: str) -> Any:
    """Return a call's arguments; cut off at the limit of tokens they are no JSON, and nothing."""
    try:
        return msgspec.json.decode(arguments)
    except msgspec.DecodeError:
        return {}


def _failure(error: Exception) -> bytes:
    return event(reported(error).anthropic_body())
