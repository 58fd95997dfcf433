"""POST /api/embed and its older form /api/embeddings: texts to vectors."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from ggq.runtime.server.embeddings import answer_embedding
from ggq.runtime.server.http import answer_json, note, read
from ggq.runtime.server.ollama.schema import EmbeddingsRequest, EmbedRequest, asked_for
from ggq.runtime.server.ollama.writing import Clock
from ggq.runtime.server.schema import EmbeddingBody
from ggq.runtime.server.streaming import while_connected

__all__ = ["embed", "embeddings"]


async def embed(request: Request) -> Response:
    """Answer POST /api/embed: unit vectors. Without a text the model is loaded."""
    clock, body = Clock(), await read(request, EmbedRequest)
    if body.options:
        note(request, "without effect: options")
    service = await asked_for(request, body)
    clock.loaded()
    out: dict[str, object] = {"model": body.model, "embeddings": []}
    n_tokens = 0
    given = [body.input] if isinstance(body.input, str) else body.input
    if any(given):
        ours = EmbeddingBody(
            input=[*given], dimensions=body.dimensions, truncate=body.truncate is not False
        )
        found = await while_connected(request, answer_embedding(service, ours))
        out["embeddings"] = [item["embedding"] for item in found["data"]]
        n_tokens = found["usage"]["prompt_tokens"]
    return answer_json({**out, **clock.times(), "prompt_eval_count": n_tokens})


async def embeddings(request: Request) -> Response:
    """Answer POST /api/embeddings: one vector, of any length."""
    body = await read(request, EmbeddingsRequest)
    if body.options:
        note(request, "without effect: options")
    service = await asked_for(request, body)
    if not body.prompt:
        return answer_json({"embedding": []})
    ours = EmbeddingBody(input=body.prompt, truncate=True, normalize=False)
    found = await while_connected(request, answer_embedding(service, ours))
    return answer_json({"embedding": found["data"][0]["embedding"]})
