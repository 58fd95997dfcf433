"""GET /api/tags, /api/ps and /api/version, POST /api/show: what models there are."""

from __future__ import annotations

import asyncio
from datetime import datetime, timezone
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

import ggq
from ggq.runtime.server.errors import APIError
from ggq.runtime.server.hosting.base import LOADED, Listed
from ggq.runtime.server.hosting.describe import Description, describe
from ggq.runtime.server.http import answer_json, host_of, read
from ggq.runtime.server.ollama.schema import NameRequest, timestamp

__all__ = ["ps", "refused", "show", "tags", "version"]

INTERFACE = "0.12.6"  # the version of Ollama whose interface this is: clients ask for a least one
_NEVER = datetime(2318, 1, 1, tzinfo=timezone.utc).timestamp()


async def version(request: Request) -> Response:
    """Answer GET /api/version."""
    return answer_json({"version": INTERFACE, "ggq": ggq.__version__})


async def tags(request: Request) -> Response:
    """Answer GET /api/tags: all models."""
    return answer_json({"models": [_entry(*pair) for pair in await _described(request)]})


async def ps(request: Request) -> Response:
    """Answer GET /api/ps: the models in memory."""
    found = []
    for listed, about in await _described(request):
        if listed.state != LOADED or listed.service is None:
            continue
        found.append({
            **_entry(listed, about),
            "size": listed.memory,
            "size_vram": 0 if listed.service.model.device == "cpu" else listed.memory,
            "expires_at": timestamp(_NEVER if listed.expires is None else listed.expires),
            "context_length": listed.service.scheduler.n_ctx,
        })  # fmt: skip
    return answer_json({"models": found})


async def show(request: Request) -> Response:
    """Answer POST /api/show: one model."""
    body = await read(request, NameRequest)
    listed = await host_of(request).find(body.wanted)
    about = await asyncio.to_thread(describe, listed)
    if about.problem:
        raise APIError(400, about.problem)
    name = listed.name
    return answer_json({
        "modelfile": f"FROM {name}\n",
        "parameters": "",
        "template": about.template,
        "license": about.license,
        "details": _details(about),
        "model_info": {**about.metadata, "general.parameter_count": about.n_weights},
        "capabilities": about.capabilities,
        "modified_at": timestamp(about.modified),
    })  # fmt: skip


async def refused(request: Request) -> Response:
    """Refuse what would change the files of models."""
    advice = "ggq convert, ggq pull and ggq rm do it"
    raise APIError(501, f"{request.url.path}: models are not made or deleted here: {advice}")


async def _described(request: Request) -> list[tuple[Listed, Description]]:
    listing = await host_of(request).listing()

    def work() -> list[tuple[Listed, Description]]:
        return [(listed, describe(listed)) for listed in listing]

    return await asyncio.to_thread(work)


def _entry(listed: Listed, about: Description) -> dict[str, Any]:
    name = listed.name if ":" in listed.name else f"{listed.name}:latest"
    return {
        "name": name,  # with a tag, always: Open WebUI looks for the name with one
        "model": name,
        "modified_at": timestamp(about.modified),
        "size": listed.size,
        "digest": about.digest,
        "details": _details(about),
    }


def _details(about: Description) -> dict[str, Any]:
    return {
        "parent_model": "",
        "format": "gguf",
        "family": about.architecture,
        "families": [about.architecture],
        "parameter_size": about.parameter_size,
        "quantization_level": about.quantization,
    }
