"""POST /completion and /infill, GET /slots: llama-server's own interface beside OpenAI's."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response

from ggq.errors import UsageError
from ggq.runtime.generation.answer import Logprobs, Piece
from ggq.runtime.sampling.params import SAMPLER_LETTERS, SamplingParams
from ggq.runtime.server.chat import token_logprob
from ggq.runtime.server.http import answer_json, client_of, host_of, read, service_of
from ggq.runtime.server.infill import infill_ids
from ggq.runtime.server.schema import SamplingBody
from ggq.runtime.server.service import Answers, Service
from ggq.runtime.server.streaming import EventStream, data, while_connected

__all__ = ["completion", "generation_settings", "infill", "slots"]

_ANY_SEED = 2**32 - 1
_SAMPLERS = {letter: name for name, letter in reversed(SAMPLER_LETTERS.items())}
_THEIR_NAMES = {"dry_last_n": "dry_penalty_last_n", "dry_breakers": "dry_sequence_breakers"}


class NativeBody(SamplingBody, kw_only=True):
    """POST /completion: a text, or token ids and texts in turn."""

    prompt: str | list[str | int] = ""
    n_probs: Annotated[int, Meta(ge=0, le=20)] = 0


class Extra(msgspec.Struct):
    """A further file of /infill."""

    text: str
    filename: str = ""


class InfillBody(NativeBody, kw_only=True):
    """POST /infill: what stands before and after the gap."""

    input_prefix: str = ""
    input_suffix: str = ""
    input_extra: Annotated[list[Extra], Meta(max_length=256)] | None = None


async def completion(request: Request) -> Response:
    """Answer POST /completion."""
    body = await read(request, NativeBody)
    service = await service_of(request, body.model)
    ids = await asyncio.to_thread(_ids, service, body.prompt)
    return await _answer(request, service, body, ids)


async def infill(request: Request) -> Response:
    """Answer POST /infill; 400 for a model without tokens for it."""
    body = await read(request, InfillBody)
    service = await service_of(request, body.model)
    if not isinstance(body.prompt, str):
        raise UsageError("prompt: expected a text")
    extra = [(x.filename, x.text) for x in body.input_extra or ()]
    texts = [body.input_prefix, body.input_suffix, body.prompt, *(text for _, text in extra)]
    service.check_length("".join(texts))
    given = body.input_prefix, body.input_suffix, extra, body.prompt
    ids = await asyncio.to_thread(infill_ids, service, *given)
    return await _answer(request, service, body, ids)


async def slots(request: Request) -> Response:
    """Answer GET /slots: how many answers each loaded model writes now, a slot each."""
    found: list[dict[str, Any]] = []
    for service in host_of(request).services():
        scheduler = service.scheduler
        busy = scheduler.n_running
        found += [
            {
                "id": i,
                "model": service.settings.model_id,
                "n_ctx": scheduler.n_ctx,
                "is_processing": i < busy,
            }
            for i in range(scheduler.n_slots)
        ]
    return answer_json(found)


def _ids(service: Service, prompt: str | list[str | int]) -> list[int]:
    """Return the token ids of a prompt; marks in its texts are marks, as in llama-server."""
    if isinstance(prompt, list) and len(prompt) > 1 and all(isinstance(x, str) for x in prompt):
        raise UsageError("prompt: one prompt at a time: /v1/completions takes several")
    out: list[int] = []
    for i, part in enumerate([prompt] if isinstance(prompt, str) else prompt):
        if isinstance(part, str):
            service.check_length(part)
            out += service.tokenizer.encode(part, add_special=i == 0, parse_special=True)
        else:
            out.append(part)
    return out


async def _answer(request: Request, service: Service, body: NativeBody, ids: list[int]) -> Response:
    if body.n not in (None, 1):
        raise UsageError("n: one answer at a time: /v1/completions takes several")
    make = await asyncio.to_thread(service.constraints.of, body, [], False)
    logprobs = body.n_probs or None
    queued = service.request(body, ids, client_of(request), logprobs=logprobs, constraint=make)
    answers = Answers(service, [queued])

    async def events() -> AsyncIterator[bytes]:
        async for event in answers:
            piece = event.piece
            made = {
                "index": 0,
                "content": piece.text,
                "tokens": [],
                **_probabilities(service, [piece]),
            }
            usage = answers.usage()
            counts = {
                "tokens_predicted": usage["completion_tokens"],
                "tokens_evaluated": usage["prompt_tokens"],
            }
            last = _end(service, body, answers, piece) if piece.finish_reason else {"stop": False}
            yield data({**made, **counts, **last})

    if body.stream:
        return EventStream(events(), answers.cancel, service.settings.ping_seconds)

    async def collect() -> dict[str, Any]:
        pieces = [event.piece async for event in answers]
        text = "".join(piece.text for piece in pieces)
        made = {"index": 0, "content": text, "tokens": [], **_probabilities(service, pieces)}
        return {**made, **_end(service, body, answers, pieces[-1])}

    try:
        return answer_json(await while_connected(request, collect()))
    finally:
        answers.cancel()


def _end(service: Service, body: NativeBody, answers: Answers, piece: Piece) -> dict[str, Any]:
    """Return what is told once, at the end."""
    usage, params = answers.usage(), answers.tickets[0].request.params
    kind = "limit" if piece.finish_reason == "length" else "word" if piece.stop else "eos"
    return {
        "stop": True,
        "model": body.model or service.settings.model_id,
        "tokens_predicted": usage["completion_tokens"],
        "tokens_evaluated": usage["prompt_tokens"],
        "tokens_cached": usage["prompt_tokens_details"]["cached_tokens"],
        "generation_settings": generation_settings(params, answers.tickets[0].request.max_tokens),
        "truncated": False,
        "stop_type": kind,
        "stopping_word": piece.stop or "",
        "timings": answers.timings(),
    }


def generation_settings(params: SamplingParams, max_tokens: int | None) -> dict[str, Any]:
    """Return sampling parameters and the limit of tokens under llama-server's names."""
    said = {f.name: getattr(params, f.name) for f in dataclasses.fields(params)}
    said.pop("logit_bias")
    said["samplers"] = [_SAMPLERS[letter] for letter in said.pop("sequence")]
    for ours, theirs in _THEIR_NAMES.items():
        said[theirs] = said.pop(ours)
    said["seed"] = _ANY_SEED if params.seed is None else params.seed
    limit = -1 if max_tokens is None else max_tokens
    return {"n_predict": limit, "max_tokens": limit, **said}


def _probabilities(service: Service, pieces: list[Piece]) -> dict[str, Any]:
    def entry(token: int, logprob: float) -> dict[str, Any]:
        return {"id": token, **token_logprob(service, token, logprob)}

    found = [
        {
            **entry(p.token_id, p.logprobs.logprob),
            "top_logprobs": [entry(*pair) for pair in p.logprobs.top],
        }
        for p in pieces
        if isinstance(p.logprobs, Logprobs) and p.token_id is not None
    ]
    return {"completion_probabilities": found} if found else {}
