"""The small endpoints: models, health, metrics, tokens, templates."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from ggq.runtime.server.errors import APIError
from ggq.runtime.server.http import answer_json, read, service_of
from ggq.runtime.server.schema import ChatBody, DetokenizeBody, TokenizeBody

__all__ = ["apply_template", "detokenize", "health", "model", "models", "props", "tokenize"]


def _entry(request: Request) -> dict[str, Any]:
    service = service_of(request)
    hp, scheduler = service.model.hparams, service.scheduler
    meta = {
        "n_vocab": service.tokenizer.n_vocab,
        "n_ctx": scheduler.n_ctx,
        "n_ctx_train": hp.n_ctx_train,
        "n_embd": hp.n_embd,
        "n_slots": scheduler.n_slots,
    }
    return {
        "id": service.settings.model_id,
        "object": "model",
        "created": service.created,
        "owned_by": "ggq",
        "meta": meta,
    }


async def models(request: Request) -> Response:
    """Answer GET /v1/models."""
    return answer_json({"object": "list", "data": [_entry(request)]})


async def model(request: Request) -> Response:
    """Answer GET /v1/models/{id}."""
    name = request.path_params["name"]
    if name != service_of(request).settings.model_id:
        raise APIError(404, f"the model {name[:100]} does not exist", "model", "model_not_found")
    return answer_json(_entry(request))


async def health(request: Request) -> Response:
    """Answer GET /health."""
    return answer_json({"status": "ok"})


async def props(request: Request) -> Response:
    """Answer GET /props, as llama-server: what the page shows."""
    service = service_of(request)
    params = service.model.sampling({})
    return answer_json({
        "model": service.settings.model_id,
        "n_ctx": service.scheduler.n_ctx,
        "total_slots": service.scheduler.n_slots,
        "chat_template": service.model.template.source,
        "default_generation_settings": {
            name: getattr(params, name)
            for name in ("temperature", "top_k", "top_p", "min_p", "repeat_penalty")
        },
    })  # fmt: skip


async def tokenize(request: Request) -> Response:
    """Answer POST /tokenize."""
    service, body = service_of(request), await read(request, TokenizeBody)
    ids = await asyncio.to_thread(
        service.model.tokenize, body.content, body.add_special, body.parse_special
    )
    if not body.with_pieces:
        return answer_json({"tokens": ids})
    pieces = [service.tokenizer.token_bytes(i) for i in ids]
    return answer_json({
        "tokens": [{"id": i, "piece": _piece(p)} for i, p in zip(ids, pieces, strict=True)]
    })  # fmt: skip


def _piece(raw: bytes) -> str | list[int]:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return list(raw)


async def detokenize(request: Request) -> Response:
    """Answer POST /detokenize."""
    service, body = service_of(request), await read(request, DetokenizeBody)
    return answer_json({"content": service.model.detokenize(body.tokens)})


async def apply_template(request: Request) -> Response:
    """Answer POST /apply-template."""
    service, body = service_of(request), await read(request, ChatBody)
    prompt = await asyncio.to_thread(service.prompter.render, body)
    return answer_json({"prompt": prompt.text, "n_tokens": len(prompt.ids)})
