"""POST /v1/chat/completions: one run of a chat request, and OpenAI's two ways to write it down."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from ggq.runtime.formats.base import CALL, CONTENT, REASONING, Delta
from ggq.runtime.generation.answer import Logprobs, Piece
from ggq.runtime.server.conflicts import refuse_conflicts, unused
from ggq.runtime.server.http import answer_json, client_of, note, read, service_of
from ggq.runtime.server.prompts import Prompt
from ggq.runtime.server.schema import ChatBody
from ggq.runtime.server.service import Answers, More, Service, new_id, nothing_more
from ggq.runtime.server.streaming import EventStream, data, while_connected
from ggq.runtime.server.thoughts import Placed
from ggq.runtime.server.tools import offered_tools, skipped_tools

__all__ = ["ChatRun", "answer_chat", "chat_completions", "token_logprob"]


class ChatRun:
    """A chat request in work: its prompt, and its answers as deltas."""

    def __init__(
        self,
        service: Service,
        body: ChatBody,
        answers: Answers,
        tools: list[dict[str, Any]],
        prompt: Prompt,
    ) -> None:
        self.service, self.body, self.answers = service, body, answers
        self.notes: list[str] = []  # what the answer's headers say
        self.older = not body.tools and bool(body.functions)  # function_call, not tool_calls
        schemas = {t["function"]["name"]: t["function"].get("parameters") or {} for t in tools}
        self.parsers = [
            service.format.parser(schemas, prompt.thinking, prompt.continued)
            for _ in range(body.n or 1)
        ]
        self._placed = [
            Placed(body.reasoning_format or "auto", service.format.think, prompt.thinking)
            for _ in range(body.n or 1)
        ]

    @classmethod
    async def start(
        cls, service: Service, body: ChatBody, client: str, given: Prompt | None = None
    ) -> ChatRun:
        """Write the prompt, unless one is given, compile the grammar and queue the request."""
        refuse_conflicts(body)
        n_given = len(body.messages)
        if given is None:
            body, prompt = await asyncio.to_thread(service.prompt, body)
        else:
            prompt = given
        left_out = n_given - len(body.messages)
        tools = offered_tools(body)
        make = await asyncio.to_thread(
            service.constraints.of, body, tools, prompt.thinking, prompt.begun
        )
        make = service.budgets.over(make, body.thinking_budget_tokens, prompt.thinking)
        logprobs = (body.top_logprobs or 0) if body.logprobs else None
        request = service.request(
            body,
            prompt.ids,
            client,
            logprobs=logprobs,
            constraint=make,
            shown=service.shown(parsed=True),
        )
        answers = Answers(service, [request])
        run = cls(service, body, answers, tools, prompt)
        if left_out:
            run.notes.append(f"truncation: the oldest {left_out} messages are left out")
        return run

    async def deltas(self) -> AsyncIterator[tuple[int, list[Delta], Piece]]:
        """Yield (choice, deltas, piece); the piece's finish reason is OpenAI's."""
        async for event in self.answers:
            parser, piece = self.parsers[event.choice], event.piece
            found = parser.push(piece.text)
            if piece.finish_reason:
                found += parser.finish()
            if self.body.parallel_tool_calls is False or self.older:
                found = [d for d in found if d.kind != CALL or d.index == 0]
            placed = self._placed[event.choice]
            yield event.choice, placed.of(found), piece

    def reason(self, choice: int, piece: Piece) -> str | None:
        """Return OpenAI's finish_reason."""
        if piece.finish_reason == "stop" and self.parsers[choice].n_calls:
            return "function_call" if self.older else "tool_calls"
        return piece.finish_reason


async def chat_completions(request: Request, more: More = nothing_more) -> Response:
    """Answer POST /v1/chat/completions; ``more`` is added to the answer, or the stream's end."""
    body = await read(request, ChatBody)
    service = await service_of(request, body.model)
    _place_thoughts(service, body)
    note(request, *skipped_tools(body), *unused(body))
    if not body.stream:
        told = partial(note, request)
        whole = answer_chat(service, body, client_of(request), told, more)
        return answer_json(await while_connected(request, whole))
    run = await ChatRun.start(service, body, client_of(request))
    note(request, *run.notes)
    chunks = _stream(run, _base(service, body, "chat.completion.chunk"), more)
    return EventStream(chunks, run.answers.cancel, service.settings.ping_seconds)


async def answer_chat(
    service: Service,
    body: ChatBody,
    client: str,
    told: Callable[..., None] = lambda *notes: None,
    more: More = nothing_more,
) -> dict[str, Any]:
    """Return the whole answer to a chat request; its work ends with the caller."""
    _place_thoughts(service, body)
    run = await ChatRun.start(service, body, client)
    told(*run.notes)
    base = _base(service, body, "chat.completion")
    try:
        choices = await _collect(run)
    finally:
        run.answers.cancel()
    answers = run.answers
    whole = {**base, "choices": choices, "usage": answers.usage(), "timings": answers.timings()}
    return {**whole, **more(service, answers)}


def _place_thoughts(service: Service, body: ChatBody) -> None:
    """Say where thoughts stand where the request does not; other interfaces have their own way."""
    body.reasoning_format = body.reasoning_format or service.settings.reasoning_format


def _base(service: Service, body: ChatBody, kind: str) -> dict[str, Any]:
    return {
        "id": new_id("chatcmpl-"),
        "object": kind,
        "created": int(time.time()),
        "model": body.model or service.settings.model_id,
        "system_fingerprint": service.fingerprint,
    }


async def _stream(run: ChatRun, base: dict[str, Any], more: More) -> AsyncIterator[bytes]:
    options = run.body.stream_options
    with_usage = bool(options and options.include_usage)
    if with_usage:
        base = {**base, "usage": None}
    for choice in range(len(run.parsers)):
        yield data(_chunk(base, choice, {"role": "assistant", "content": ""}))
    async for choice, deltas, piece in run.deltas():
        logprobs = _logprobs(run.service, [piece])
        for delta in deltas:
            yield data(_chunk(base, choice, _delta(delta, run.older), logprobs=logprobs))
            logprobs = None
        if reason := run.reason(choice, piece):
            yield data(_chunk(base, choice, {}, reason, logprobs))
        elif logprobs:
            yield data(_chunk(base, choice, {"content": ""}, logprobs=logprobs))
    last = {**base, "choices": [], "timings": run.answers.timings()}
    extra = more(run.service, run.answers)
    if with_usage or extra:
        yield data({**last, "usage": run.answers.usage(), **extra})
    yield b"data: [DONE]\n\n"


def _chunk(
    base: dict[str, Any],
    choice: int,
    delta: dict[str, Any],
    reason: str | None = None,
    logprobs: Any = None,
) -> dict[str, Any]:
    part = {"index": choice, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
    return {**base, "choices": [part]}


def _delta(delta: Delta, older: bool) -> dict[str, Any]:
    if delta.kind != CALL:
        return {"reasoning_content" if delta.kind == REASONING else "content": delta.text}
    call = {"function": {"arguments": delta.text}} if delta.call is None else _call([delta])
    if older:
        return {"function_call": call["function"]}
    return {"tool_calls": [{"index": delta.index, **call}]}


def _call(deltas: list[Delta]) -> dict[str, Any]:
    """Return a call of all its deltas; the first has the name."""
    call = deltas[0].call
    assert call is not None
    arguments = call.arguments + "".join(d.text for d in deltas)
    function = {"name": call.name, "arguments": arguments}
    return {"id": f"call_{deltas[0].id}", "type": "function", "function": function}


async def _collect(run: ChatRun) -> list[dict[str, Any]]:
    n = len(run.parsers)
    deltas: list[list[Delta]] = [[] for _ in range(n)]
    pieces: list[list[Piece]] = [[] for _ in range(n)]
    reasons: list[str | None] = [None] * n
    async for choice, found, piece in run.deltas():
        deltas[choice] += found
        pieces[choice].append(piece)
        reasons[choice] = run.reason(choice, piece)
    return [
        {
            "index": i,
            "message": message_of(deltas[i], run.older),
            "logprobs": _logprobs(run.service, pieces[i]),
            "finish_reason": reasons[i],
        }
        for i in range(n)
    ]


def message_of(deltas: list[Delta], older: bool = False) -> dict[str, Any]:
    """Return an assistant's message of all its deltas."""
    text, thoughts = (
        "".join(d.text for d in deltas if d.kind == kind) for kind in (CONTENT, REASONING)
    )
    by_call: dict[int, list[Delta]] = {}
    for d in deltas:
        if d.kind == CALL:
            by_call.setdefault(d.index, []).append(d)
    calls = [_call(found) for found in by_call.values()]
    message: dict[str, Any] = {"role": "assistant", "content": text or None, "refusal": None}
    if not calls:
        message["content"] = text
    if thoughts:
        message["reasoning_content"] = thoughts
    if calls and older:
        return {**message, "function_call": calls[0]["function"]}
    return {**message, "tool_calls": calls} if calls else message


def _logprobs(service: Service, pieces: list[Piece]) -> dict[str, Any] | None:
    found = [
        {
            **token_logprob(service, p.token_id, p.logprobs.logprob),
            "top_logprobs": [token_logprob(service, *pair) for pair in p.logprobs.top],
        }
        for p in pieces
        if isinstance(p.logprobs, Logprobs) and p.token_id is not None
    ]
    return {"content": found, "refusal": None} if found else None


def token_logprob(service: Service, token: int, logprob: float) -> dict[str, Any]:
    """Return a token's text, bytes and log-probability."""
    raw = service.tokenizer.token_bytes(token)
    return {"token": raw.decode("utf-8", "replace"), "logprob": logprob, "bytes": list(raw)}
