"""The small endpoints: models, health, metrics, tokens, templates."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from ggq.runtime.server.hosting.base import LOADED, Listed
from ggq.runtime.server.http import answer_json, host_of, read, service_of
from ggq.runtime.server.native import generation_settings
from ggq.runtime.server.schema import ChatBody, DetokenizeBody, ModelBody, TokenizeBody
from ggq.runtime.server.service import Service

__all__ = [
    "apply_template",
    "detokenize",
    "health",
    "load",
    "model",
    "models",
    "props",
    "tokenize",
    "unload",
]


def _loaded(service: Service) -> dict[str, Any]:
    hp, scheduler = service.model.hparams, service.scheduler
    return {
        "n_vocab": service.tokenizer.n_vocab,
        "n_ctx": scheduler.n_ctx,
        "n_ctx_train": hp.n_ctx_train,
        "n_embd": hp.n_embd,
        "n_slots": scheduler.n_slots,
        "vision": service.model.gallery is not None,
    }


def _entry(listed: Listed) -> dict[str, Any]:
    """Return a model as OpenAI describes it, its state as llama-server does."""
    service = listed.service
    return {
        "id": listed.name,
        "object": "model",
        "created": service.created if service else int(listed.path.stat().st_mtime),
        "owned_by": "ggq",
        "status": {"value": listed.state},
        "meta": _loaded(service) if service else None,
    }


async def models(request: Request) -> Response:
    """Answer GET /v1/models."""
    listing = await host_of(request).listing()
    return answer_json({"object": "list", "data": [_entry(listed) for listed in listing]})


async def model(request: Request) -> Response:
    """Answer GET /v1/models/{id}."""
    return answer_json(_entry(await host_of(request).find(request.path_params["name"])))


async def load(request: Request) -> Response:
    """Answer POST /models/load, as llama-server: once the model is there."""
    body = await read(request, ModelBody)
    await service_of(request, body.model)
    return answer_json({"success": True})


async def unload(request: Request) -> Response:
    """Answer POST /models/unload, as llama-server: at once; answers are written to their end."""
    body = await read(request, ModelBody)
    await host_of(request).unload(body.model)
    return answer_json({"success": True})


async def health(request: Request) -> Response:
    """Answer GET /health."""
    return answer_json({"status": "ok"})


async def props(request: Request) -> Response:
    """Answer GET /props, as llama-server: what the page shows."""
    host, name = host_of(request), request.query_params.get("model")
    if host.many and name is None:
        listing = await host.listing()
        loaded = [listed for listed in listing if listed.state == LOADED]
        if not loaded:
            first = listing[0].name if listing else ""
            nothing = {"n_ctx": 0, "total_slots": 0, "chat_template": ""}
            defaults = {"default_generation_settings": {"n_ctx": 0, "params": {}}}
            return answer_json({"model": first, **nothing, **defaults})
        name = loaded[0].name
    service = await service_of(request, name)
    settings, template = service.settings, service.template
    params = service.model.sampling(settings.sampling)
    limit = settings.n_predict or settings.max_tokens
    return answer_json({
        "model": settings.model_id,
        "n_ctx": service.scheduler.n_ctx,
        "default_generation_settings": {
            "n_ctx": service.scheduler.n_ctx,
            "params": {
                **generation_settings(params, limit),
                "reasoning_format": settings.reasoning_format,
            },
        },
        "total_slots": service.scheduler.n_slots,
        "model_alias": settings.model_id,
        "model_path": Path(service.model.gguf.path).name,  # where it lies is nobody's business
        "modalities": {"vision": service.model.gallery is not None, "audio": False},
        "chat_template": template.source,
        "chat_template_caps": service.prompter.abilities,
        "bos_token": template.special_tokens.get("bos_token", ""),
        "eos_token": template.special_tokens.get("eos_token", ""),
        "build_info": service.fingerprint,
        "is_sleeping": False,
    })  # fmt: skip


async def tokenize(request: Request) -> Response:
    """Answer POST /tokenize."""
    body = await read(request, TokenizeBody)
    service = await service_of(request, body.model)
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
    body = await read(request, DetokenizeBody)
    service = await service_of(request, body.model)
    return answer_json({"content": service.model.detokenize(body.tokens)})


async def apply_template(request: Request) -> Response:
    """Answer POST /apply-template."""
    body = await read(request, ChatBody)
    service = await service_of(request, body.model)
    prompt = await asyncio.to_thread(service.prompter.render, body)
    return answer_json({"prompt": prompt.text, "n_tokens": len(prompt.ids)})
