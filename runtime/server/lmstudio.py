"""LM Studio's REST interface, /api/v0: OpenAI's bodies, with speeds and the model's kind beside."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

import ggq
from ggq.runtime.server.chat import chat_completions
from ggq.runtime.server.completions import completions
from ggq.runtime.server.hosting.base import LOADED, LOADING, Listed
from ggq.runtime.server.hosting.describe import Description, describe, quantization
from ggq.runtime.server.http import answer_json, host_of
from ggq.runtime.server.service import Answers, Service

__all__ = ["chat", "model", "models", "text"]

_STATES = {LOADED: "loaded", LOADING: "loading"}


async def models(request: Request) -> Response:
    """Answer GET /api/v0/models: all models."""
    listing = await host_of(request).listing()
    found = await asyncio.to_thread(lambda: [_entry(listed) for listed in listing])
    return answer_json({"object": "list", "data": found})


async def model(request: Request) -> Response:
    """Answer GET /api/v0/models/{model}."""
    listed = await host_of(request).find(request.path_params["name"])
    return answer_json(await asyncio.to_thread(_entry, listed))


async def chat(request: Request) -> Response:
    """Answer POST /api/v0/chat/completions."""
    return await chat_completions(request, _more)


async def text(request: Request) -> Response:
    """Answer POST /api/v0/completions."""
    return await completions(request, _more)


def _entry(listed: Listed) -> dict[str, Any]:
    about = describe(listed)
    publisher, slash, _ = listed.name.partition("/")
    found = {
        "id": listed.name,
        "object": "model",
        "type": _kind(about),
        "publisher": publisher if slash else "",
        "arch": about.architecture,
        "compatibility_type": "gguf",
        "quantization": about.quantization,
        "state": _STATES.get(listed.state, "not-loaded"),
        "max_context_length": about.n_ctx_train,
        "capabilities": ["tool_use"] if "tools" in about.capabilities else [],
    }
    if listed.service is not None:
        found["loaded_context_length"] = listed.service.scheduler.n_ctx
    return found


def _kind(about: Description) -> str:
    """Return LM Studio's word for what a model is."""
    if about.embeds:
        return "embeddings"
    return "vlm" if "vision" in about.capabilities else "llm"


def _more(service: Service, answers: Answers) -> dict[str, Any]:
    """Return what is told of an answer beyond OpenAI's fields; times in seconds."""
    timings, ticket, gguf = answers.timings(), answers.tickets[0], service.model.gguf
    return {
        "stats": {
            "tokens_per_second": timings["predicted_per_second"],
            "time_to_first_token": max(ticket.first_token - ticket.submitted, 0.0),
            "generation_time": ticket.generation_seconds,
            "stop_reason": _stop_reason(service, answers),
        },
        "model_info": {
            "arch": gguf.metadata["general.architecture"],
            "quant": quantization(gguf),
            "format": "gguf",
            "context_length": service.scheduler.n_ctx,
        },
        "runtime": {"name": "ggq", "version": ggq.__version__, "supported_formats": ["gguf"]},
    }


def _stop_reason(service: Service, answers: Answers) -> str:
    """Return why the first choice ended, in LM Studio's words."""
    end, ticket = answers.ends[0], answers.tickets[0]
    if end.finish_reason == "length":
        n_tokens = ticket.prompt_tokens + answers.tickets[0].generated_tokens
        full = n_tokens >= service.scheduler.n_ctx and len(answers.ends) == 1
        return "contextLengthReached" if full else "maxPredictedTokensReached"
    return "eosFound" if end.stop is None else "stopStringFound"
