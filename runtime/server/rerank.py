"""POST /v1/rerank: documents by how well they answer a query.

In the forms of Jina, Cohere and llama-server, and, where documents are called texts, of Hugging
Face's text-embeddings-inference.
"""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from ggq.runtime.engine.embedding import Tokens
from ggq.runtime.generation.generation import ContextError
from ggq.runtime.server.embeddings import in_turns
from ggq.runtime.server.errors import APIError
from ggq.runtime.server.http import answer_json, read, service_of
from ggq.runtime.server.schema import RerankBody
from ggq.runtime.server.service import new_id
from ggq.runtime.server.streaming import while_connected

__all__ = ["answer_rerank", "rerank"]


async def rerank(request: Request) -> Response:
    """Answer POST /v1/rerank."""
    body = await read(request, RerankBody)
    service = await service_of(request, body.model)
    return answer_json(await while_connected(request, answer_rerank(service, body)))


async def answer_rerank(service: Any, body: RerankBody, client: str = "") -> Any:
    """Return the whole answer to a request to rank documents."""
    field = "documents" if body.texts is None else "texts"
    if body.texts is not None and body.documents is not None:
        raise APIError(400, "texts: give documents or texts, not both", "texts")
    cuts = {body.truncate, body.truncation} - {None}
    if len(cuts) > 1:
        raise APIError(400, "truncation: truncate says otherwise", "truncation")
    given = body.documents if body.texts is None else body.texts
    if not given:
        raise APIError(400, f"{field}: expected a list of texts that is not empty", field)
    whole = service.model.embedder.ranking([_text(item, i) for i, item in enumerate(given)])
    texts = whole
    if body.truncate or body.truncation:
        texts = [service.cut(text) for text in texts]
    for text in (body.query, *texts):
        service.check_length(text)
    pairs = await asyncio.to_thread(_pairs, service, body, texts)
    scores = await in_turns(service, pairs, service.model.embedder.relevances)
    order = sorted(range(len(texts)), key=lambda i: -scores[i])[: body.top_n]
    with_text = body.return_text or body.return_documents
    if body.texts is not None:
        items = [{"index": i, "score": scores[i]} for i in order]
        return [x | {"text": whole[x["index"]]} for x in items] if with_text else items
    results: list[dict[str, Any]] = []
    for i in order:
        results.append({"index": i, "relevance_score": scores[i]})
        if with_text:
            results[-1]["document"] = {"text": whole[i]}
    n_tokens = sum(len(pair.ids) for pair in pairs)
    return {
        "id": new_id("rerank-"),
        "object": "list",
        "model": body.model or service.settings.model_id,
        "results": results,
        "usage": {"prompt_tokens": n_tokens, "total_tokens": n_tokens},
        "meta": {"api_version": {"version": "2"}, "billed_units": {"search_units": 1}},
    }


def _text(item: Any, number: int) -> str:
    """Return a document's text: it is one, or an object that holds one."""
    text = item.get("text") if isinstance(item, dict) else item
    if not isinstance(text, str):
        raise APIError(
            400, f"documents[{number}]: expected a text, or an object with one", "documents"
        )
    return text


def _pairs(service: Any, body: RerankBody, texts: list[str]) -> list[Tokens]:
    limit, cut = service.scheduler.n_ctx, body.truncate or body.truncation
    made = [
        service.model.documents.pair(body.query, text, limit if cut else None) for text in texts
    ]
    for ids, _ in made:
        if len(ids) > limit:
            raise ContextError(len(ids), limit)
    return [Tokens(*pair) for pair in made]
