"""POST /api/chat and /api/generate: Ollama's ways to ask for an answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from ggq.runtime.server.chat import ChatRun
from ggq.runtime.server.errors import APIError
from ggq.runtime.server.http import answer_json, client_of, host_of, note, read
from ggq.runtime.server.infill import infill_ids
from ggq.runtime.server.ollama.schema import (
    ChatRequest,
    GenerateRequest,
    OllamaMessage,
    asked_for,
    chat_body,
    keep_of,
)
from ggq.runtime.server.ollama.writing import (
    Clock,
    LineStream,
    Parts,
    base,
    durations,
    line,
    parts_of,
    whole,
)
from ggq.runtime.server.prompts import Prompt
from ggq.runtime.server.service import Service
from ggq.runtime.server.streaming import while_connected
from ggq.runtime.server.tools import skipped_tools

__all__ = ["chat", "generate"]

Shape = Callable[[Parts], dict[str, Any]]


async def chat(request: Request) -> Response:
    """Answer POST /api/chat; without messages the model is loaded, or unloaded."""
    clock, body = Clock(), await read(request, ChatRequest)
    empty = {"message": {"role": "assistant", "content": ""}}
    if not body.messages:
        return await _loaded(request, body, empty)
    service = await asked_for(request, body)
    clock.loaded()
    ours = chat_body(request, service, body, body.messages)
    note(request, *skipped_tools(ours))
    run = await ChatRun.start(service, ours, client_of(request))
    note(request, *run.notes)

    def shape(parts: Parts) -> dict[str, Any]:
        rest = {"logprobs": parts["logprobs"]} if "logprobs" in parts else {}
        said = {n: v for n, v in parts.items() if n != "logprobs"}
        return {"message": {"role": "assistant", "content": "", **said}, **rest}

    return await _answer(request, body, run, clock, shape)


async def generate(request: Request) -> Response:
    """Answer POST /api/generate; without a prompt the model is loaded, or unloaded."""
    clock, body = Clock(), await read(request, GenerateRequest)
    for field in ("template", "context"):
        if getattr(body, field):
            raise APIError(400, f"{field}: not supported: /api/chat", field)
    if body.images and (body.raw or body.suffix):
        raise APIError(400, "images: not with raw or suffix: they need the template", "images")
    if not body.prompt and not body.suffix:
        return await _loaded(request, body, {"response": ""})
    service = await asked_for(request, body)
    clock.loaded()
    turns = [OllamaMessage("system", body.system)] if body.system else []
    turns.append(OllamaMessage("user", body.prompt, images=body.images))
    ours = chat_body(request, service, body, turns)
    prompt = None
    if body.raw or body.suffix:
        if body.system:
            note(request, "without effect: system")
        prompt = await asyncio.to_thread(_as_it_is, service, body)
    run = await ChatRun.start(service, ours, client_of(request), prompt)
    note(request, *run.notes)

    def shape(parts: Parts) -> dict[str, Any]:
        rest = {n: v for n, v in parts.items() if n != "content"}
        return {"response": parts.get("content", ""), **rest}

    return await _answer(request, body, run, clock, shape)


def _as_it_is(service: Service, body: GenerateRequest) -> Prompt:
    """Return the prompt without a template: the text, or the place between two texts."""
    service.check_length(body.prompt + (body.suffix or ""))
    if body.suffix:
        return Prompt(infill_ids(service, body.prompt, body.suffix), body.prompt)
    ids = service.model.tokenize(body.prompt, add_special=True, parse_special=True)
    return Prompt(ids, body.prompt)


async def _loaded(
    request: Request, body: ChatRequest | GenerateRequest, empty: dict[str, Any]
) -> Response:
    """Load the model without asking it anything, or, with keep_alive 0, unload it."""
    if keep_of(request, body.keep_alive) == 0 and host_of(request).many:
        await host_of(request).unload(body.model)
        reason = "unload"
    else:
        await asked_for(request, body)
        reason = "load"
    return answer_json({**base(body.model), **empty, "done": True, "done_reason": reason})


async def _answer(
    request: Request, body: ChatRequest | GenerateRequest, run: ChatRun, clock: Clock, shape: Shape
) -> Response:
    """Return the answer, a stream of lines unless the request says otherwise."""

    def end(reason: str) -> dict[str, Any]:
        return {"done": True, "done_reason": reason, **durations(clock, run.answers)}

    async def lines() -> AsyncIterator[bytes]:
        async for parts, reason in parts_of(run):
            last = {"done": False} if reason is None else end(reason)
            yield line({**base(body.model), **shape(parts), **last})

    if body.stream is not False:
        return LineStream(lines(), run.answers.cancel)

    async def collect() -> dict[str, Any]:
        found, why = [], "stop"
        async for parts, reason in parts_of(run):
            found.append(parts)
            why = reason or why
        return {**base(body.model), **shape(whole(found)), **end(why)}

    try:
        return answer_json(await while_connected(request, collect()))
    finally:
        run.answers.cancel()
