"""POST /v1/embeddings: texts or token ids to vectors, several in a step."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from typing import Any

import numpy as np
from starlette.requests import Request
from starlette.responses import Response

from ggq.runtime.cache.layout import PAGE
from ggq.runtime.engine.embedding import Tokens, finished
from ggq.runtime.generation.generation import ContextError
from ggq.runtime.server.completions import token_lists
from ggq.runtime.server.errors import APIError
from ggq.runtime.server.http import answer_json, read, service_of
from ggq.runtime.server.schema import EmbeddingBody
from ggq.runtime.server.streaming import while_connected

__all__ = ["answer_embedding", "embeddings", "in_turns"]


async def embeddings(request: Request) -> Response:
    """Answer POST /v1/embeddings."""
    body = await read(request, EmbeddingBody)
    service = await service_of(request, body.model)
    return answer_json(await while_connected(request, answer_embedding(service, body)))


async def answer_embedding(service: Any, body: EmbeddingBody, client: str = "") -> dict[str, Any]:
    """Return the whole answer to an embedding request."""
    if body.encoding_format not in (None, "float", "base64"):
        message = "encoding_format: expected float or base64"
        raise APIError(400, message, "encoding_format")
    model = service.model
    way = model.embedder.pooling(body.pooling)
    if way in ("none", "rank"):
        raise APIError(400, f"pooling {way} gives no single vector: mean, cls or last", "pooling")
    prompts = await asyncio.to_thread(_ids, service, body)
    n_vocab, limit = service.tokenizer.n_vocab, service.scheduler.n_ctx
    for ids in prompts:
        if max(ids) >= n_vocab:
            raise APIError(400, f"input: token id {max(ids)} is outside {n_vocab}", "input")
        if len(ids) > limit:
            raise ContextError(len(ids), limit)
    model.embedder.check_dimensions(body.dimensions)
    found = await in_turns(
        service, [Tokens(ids) for ids in prompts], lambda some: model.embedder.vectors(some, way)
    )
    normalize = body.normalize is not False
    vectors = [finished(v, normalize, body.dimensions) for v in found]
    as_text = body.encoding_format == "base64"
    items = [
        {"object": "embedding", "index": i, "embedding": _written(v, as_text)}
        for i, v in enumerate(vectors)
    ]
    n_tokens = sum(map(len, prompts))
    return {
        "object": "list",
        "data": items,
        "model": body.model or service.settings.model_id,
        "usage": {"prompt_tokens": n_tokens, "total_tokens": n_tokens},
    }


def _ids(service: Any, body: EmbeddingBody) -> list[list[int]]:
    """Return the token ids of the input, texts with their prompt before them."""
    documents = service.model.documents
    before = documents.prompt(body.prompt_name, body.prompt)
    limit, given = None, body.input
    if before and not (isinstance(given, str) or isinstance(given[0], str)):
        field = "prompt_name" if body.prompt is None else "prompt"
        raise APIError(400, f"{field}: goes before texts, the input holds token ids", field)
    if body.truncate:
        limit = service.scheduler.n_ctx
        texts = [given] if isinstance(given, str) else given
        given = [service.cut(x) if isinstance(x, str) else x for x in texts]

    def encode(text: str) -> list[int]:
        ids: list[int] = documents.ids(before + text, limit)
        return ids

    return token_lists(service, given, "input", encode)


async def in_turns(
    service: Any, texts: list[Tokens], work: Callable[[list[Tokens]], list[Any]]
) -> list[Any]:
    """Return ``work`` of all texts, done a step's worth at a time between those of answers."""
    found: list[Any] = []
    for some in service.model.embedder.groups(texts):
        positions = sum(-(-len(text.ids) // PAGE) * PAGE for text in some)
        job = service.scheduler.call(lambda some=some: work(some), positions)
        found += await asyncio.wrap_future(job)
    return found


def _written(vector: np.ndarray, as_text: bool) -> Any:
    if as_text:
        return base64.b64encode(vector.astype("<f4").tobytes()).decode()
    return vector.tolist()
