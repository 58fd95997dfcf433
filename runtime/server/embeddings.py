"""POST /v1/embeddings: texts or token ids to normalized vectors."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import numpy as np
from starlette.requests import Request
from starlette.responses import Response

from ggq.runtime.engine.embedding import embed
from ggq.runtime.generation.generation import ContextError
from ggq.runtime.server.completions import token_lists
from ggq.runtime.server.errors import APIError
from ggq.runtime.server.http import answer_json, read, service_of
from ggq.runtime.server.schema import EmbeddingBody
from ggq.runtime.server.streaming import while_connected

__all__ = ["answer_embedding", "embeddings"]


async def embeddings(request: Request) -> Response:
    """Answer POST /v1/embeddings."""
    service, body = service_of(request), await read(request, EmbeddingBody)
    return answer_json(await while_connected(request, answer_embedding(service, body)))


async def answer_embedding(service: Any, body: EmbeddingBody, client: str = "") -> dict[str, Any]:
    """Return the whole answer to an embedding request."""
    if body.encoding_format not in (None, "float", "base64"):
        message = "encoding_format: expected float or base64"
        raise APIError(400, message, "encoding_format")
    prompts = await asyncio.to_thread(token_lists, service, body.input, "input")
    n_vocab, n_ctx = service.tokenizer.n_vocab, service.scheduler.n_ctx
    for ids in prompts:
        if max(ids) >= n_vocab:
            raise APIError(400, f"input: token id {max(ids)} is outside {n_vocab}", "input")
        if len(ids) > n_ctx:
            raise ContextError(len(ids), n_ctx)
    vectors = [_cut(await _embed(service.scheduler, ids), body.dimensions) for ids in prompts]
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


async def _embed(scheduler: Any, ids: list[int]) -> np.ndarray:
    job = scheduler.call(lambda: embed(scheduler.engine, ids), len(ids))
    return await asyncio.wrap_future(job)


def _cut(vector: np.ndarray, dimensions: int | None) -> np.ndarray:
    if dimensions is None:
        return vector
    if dimensions > len(vector):
        raise APIError(400, f"dimensions: the model has {len(vector)}", "dimensions")
    vector = vector[:dimensions]
    return vector / max(float(np.linalg.norm(vector)), 1e-12)


def _written(vector: np.ndarray, as_text: bool) -> Any:
    if as_text:
        return base64.b64encode(vector.astype("<f4").tobytes()).decode()
    return vector.tolist()
