"""POST /v1/completions: text continued, for one or several prompts of text or token ids."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from ggq.errors import UsageError
from ggq.runtime.batching.requests import Request as Queued
from ggq.runtime.generation.answer import Logprobs, Piece
from ggq.runtime.server.conflicts import refuse_conflicts, unused
from ggq.runtime.server.errors import APIError
from ggq.runtime.server.http import answer_json, client_of, note, read, service_of
from ggq.runtime.server.schema import CompletionBody
from ggq.runtime.server.scoring import prompt_logprobs
from ggq.runtime.server.service import Answers, More, Service, new_id, nothing_more
from ggq.runtime.server.streaming import EventStream, data, while_connected

__all__ = ["answer_completion", "completions", "token_lists"]

_MAX_PROMPTS = 64


def token_lists(
    service: Service, given: Any, field: str, encode: Callable[[str], list[int]] | None = None
) -> list[list[int]]:
    """Return token ids of a text, a list of texts, token ids or lists of token ids."""
    encode = encode or service.model.tokenize
    if isinstance(given, str) or (given and all(isinstance(item, int) for item in given)):
        given = [given]
    if not given:
        raise UsageError(f"{field}: is empty")
    kinds = {type(item) for item in given}
    if len(kinds) != 1 or int in kinds:
        raise UsageError(f"{field}: expected texts or token ids, not a mixture")
    for text in given:
        if isinstance(text, str):
            service.check_length(text)
    ids = [encode(x) if isinstance(x, str) else list(x) for x in given]
    if not all(ids):
        raise UsageError(f"{field}: is empty")
    return ids


async def completions(request: Request, more: More = nothing_more) -> Response:
    """Answer POST /v1/completions; ``more`` is added to the answer, or the stream's end."""
    body = await read(request, CompletionBody)
    service = await service_of(request, body.model)
    note(request, *unused(body))
    if not body.stream:
        whole = answer_completion(service, body, client_of(request), more)
        return answer_json(await while_connected(request, whole))
    answers, heads = await _start(service, body, client_of(request))
    chunks = _stream(service, body, answers, heads, more)
    return EventStream(chunks, answers.cancel, service.settings.ping_seconds)


async def answer_completion(
    service: Service, body: CompletionBody, client: str, more: More = nothing_more
) -> dict[str, Any]:
    """Return the whole answer to a completion request; its work ends with the caller."""
    answers, heads = await _start(service, body, client)
    try:
        choices = await _collect(service, answers, heads)
    finally:
        answers.cancel()
    whole = {**_base(service, body), "choices": choices, "usage": answers.usage()}
    return {**whole, "timings": answers.timings(), **more(service, answers)}


@dataclass(frozen=True)
class Head:
    """What a choice begins with: the prompt where it is echoed, and its tokens' probabilities."""

    text: str = ""
    tokens: tuple[tuple[int, Logprobs | None], ...] = ()


async def _start(service: Service, body: CompletionBody, client: str) -> tuple[Answers, list[Head]]:
    """Queue the prompts; return their answers, and what each choice begins with."""
    refuse_conflicts(body)
    if body.suffix:
        raise APIError(400, "suffix: not supported", "suffix")
    if body.best_of is not None and body.best_of != (body.n or 1):
        raise APIError(400, "best_of: only the value of n is supported", "best_of")
    prompts = await asyncio.to_thread(token_lists, service, body.prompt, "prompt")
    if len(prompts) > _MAX_PROMPTS:
        raise APIError(400, f"prompt: at most {_MAX_PROMPTS} prompts at once", "prompt")
    make = await asyncio.to_thread(service.constraints.of, body, [], False)
    more: dict[str, Any] = {"logprobs": body.logprobs, "constraint": make}
    if body.max_tokens is None and body.n_predict is None and service.settings.n_predict is None:
        more["max_tokens"] = min(16, service.settings.max_tokens or 16)  # OpenAI's default here
    requests = [service.request(body, ids, client, **more) for ids in prompts]
    for request in requests:
        request.check(service.tokenizer.n_vocab, service.scheduler.n_ctx)
    heads = [await _head(service, body, request) for request in requests]
    answers = Answers(service, requests)
    return answers, [head for head in heads for _ in range(body.n or 1)]


async def _head(service: Service, body: CompletionBody, request: Queued) -> Head:
    if not body.echo:
        return Head()
    ids = list(request.ids)
    text = service.model.detokenize(ids)
    if body.logprobs is None:
        return Head(text)
    scheduler, count = service.scheduler, body.logprobs
    job = scheduler.call(lambda: prompt_logprobs(scheduler, ids, count, request.mix), len(ids))
    found = await asyncio.wrap_future(job)
    return Head(text, tuple(zip(ids, found, strict=True)))


def _base(service: Service, body: CompletionBody) -> dict[str, Any]:
    return {
        "id": new_id("cmpl-"),
        "object": "text_completion",
        "created": int(time.time()),
        "model": body.model or service.settings.model_id,
        "system_fingerprint": service.fingerprint,
    }


async def _stream(
    service: Service, body: CompletionBody, answers: Answers, heads: list[Head], more: More
) -> AsyncIterator[bytes]:
    base = _base(service, body)
    for i, head in enumerate(heads):
        if head.text:
            logprobs = _logprobs(service, head, [])
            yield data({**base, "choices": [_choice(i, head.text, None, logprobs)]})
    async for event in answers:
        piece = event.piece
        logprobs = _logprobs(service, Head(), [piece])
        choice = _choice(event.choice, piece.text, piece.finish_reason, logprobs)
        yield data({**base, "choices": [choice]})
    extra = more(service, answers)
    if extra or (body.stream_options and body.stream_options.include_usage):
        last = {**base, "choices": [], "usage": answers.usage()}
        yield data({**last, "timings": answers.timings(), **extra})
    yield b"data: [DONE]\n\n"


async def _collect(service: Service, answers: Answers, heads: list[Head]) -> list[dict[str, Any]]:
    pieces: list[list[Piece]] = [[] for _ in heads]
    async for event in answers:
        pieces[event.choice].append(event.piece)
    return [
        _choice(
            i,
            head.text + "".join(p.text for p in pieces[i]),
            pieces[i][-1].finish_reason,
            _logprobs(service, head, pieces[i]),
        )
        for i, head in enumerate(heads)
    ]


def _choice(index: int, text: str, reason: str | None, logprobs: Any) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": reason}


def _logprobs(service: Service, head: Head, pieces: list[Piece]) -> dict[str, Any] | None:
    """Return OpenAI's older shape: four lists of equal length."""
    made = ((p.token_id, p.logprobs) for p in pieces if p.token_id is not None and p.logprobs)
    entries = [*head.tokens, *made]
    offset = 0 if head.tokens else len(head.text)
    out: dict[str, list[Any]] = {
        "tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []
    }  # fmt: skip
    for token, found in entries:
        text = _text(service, token)
        out["tokens"].append(text)
        out["token_logprobs"].append(found and found.logprob)
        out["top_logprobs"].append(found and _top(service, token, found))
        out["text_offset"].append(offset)
        offset += len(text)
    return out if entries else None


def _top(service: Service, token: int, found: Logprobs) -> dict[str, float]:
    """Return the likeliest tokens and the one that is there; of equal texts the likeliest."""
    pairs = [(token, found.logprob), *found.top] if found.top else []
    rising = sorted(pairs, key=lambda pair: pair[1])
    return {_text(service, i): p for i, p in rising}


def _text(service: Service, token: int) -> str:
    found: str = service.tokenizer.token_bytes(token).decode("utf-8", "replace")
    return found
