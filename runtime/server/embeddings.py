"""POST /v1/embeddings: texts or token ids to vectors, several in a step."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response

from ggq.runtime.cache.layout import PAGE
from ggq.runtime.engine.embedding import Tokens, finished
from ggq.runtime.generation.generation import ContextError
from ggq.runtime.server.completions import token_lists
from ggq.runtime.server.errors import APIError, fields_named
from ggq.runtime.server.http import answer_json, read, request_members, service_of
from ggq.runtime.server.schema import EmbeddingBody, Ids
from ggq.runtime.server.streaming import while_connected

__all__ = ["answer_embedding", "either_embeddings", "embedding", "embeddings", "in_turns"]

_LARGEST = 32760.0  # fits in an int16, as llama.cpp has it
Texts = str | Annotated[list[str | int | Ids], Meta(max_length=2048)]


async def embeddings(request: Request) -> Response:
    """Answer POST /v1/embeddings."""
    body = await read(request, EmbeddingBody)
    service = await service_of(request, body.model)
    return answer_json(await while_connected(request, answer_embedding(service, body)))


class NativeEmbedding(msgspec.Struct, kw_only=True):
    """POST /embedding; ``embd_normalize``: -1 none, 0 by the largest, 1 by the sum, 2 by length, P.

    ``content`` is llama-server's own name, ``input`` OpenAI's.
    """

    content: Texts | None = None
    input: Texts | None = None
    model: str | None = None
    embd_normalize: Annotated[int, Meta(ge=-1, le=64)] = 2


async def either_embeddings(request: Request) -> Response:
    """Answer POST /embeddings: llama-server's shape to ``content``, OpenAI's to ``input``."""
    kind = await request_members(request)
    return await (embedding(request) if "content" in kind else embeddings(request))


async def embedding(request: Request) -> Response:
    """Answer POST /embedding, as llama-server: a list of vectors, each in a list of its own."""
    body = await read(request, NativeEmbedding)
    given = body.content if body.content is not None else body.input
    if given is None or given == []:
        raise APIError(400, "content: missing, it is required", "content")
    service = await service_of(request, body.model)
    asked = EmbeddingBody(input=given, normalize=False)
    with fields_named({r"input\b": "content" if body.content is not None else "input"}):
        whole = await while_connected(request, answer_embedding(service, asked))
    vectors = [scaled(np.array(x["embedding"]), body.embd_normalize) for x in whole["data"]]
    return answer_json([{"index": i, "embedding": [v.tolist()]} for i, v in enumerate(vectors)])


def scaled(vector: np.ndarray, how: int) -> np.ndarray:
    """Return a vector as llama-server's ``embd_normalize`` says; 0: the largest is 32760."""
    if how < 0:
        return vector
    size = np.abs(vector).max() / _LARGEST if how == 0 else np.linalg.norm(vector, how)
    return vector / size if size > 0 else vector


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
