"""POST /api/pull: a model fetched by name, its progress on lines."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from ggq import hub
from ggq.runtime.server.errors import APIError
from ggq.runtime.server.http import answer_json, host_of, note, read
from ggq.runtime.server.ollama.schema import NameRequest
from ggq.runtime.server.ollama.writing import LineStream, line

__all__ = ["pull"]

_EVERY = 1 << 22  # bytes between two lines


async def pull(request: Request) -> Response:
    """Answer POST /api/pull, as `ggq pull` does; a client that goes away does not end it."""
    body = await read(request, NameRequest)
    if not host_of(request).many:
        raise APIError(400, "this server serves one model: `ggq serve` without one fetches others")
    name = body.wanted.removesuffix(":latest")
    if not hub.is_name(name):
        raise APIError(404, f"{name[:100]}: no known name, nor org/repo[:quantization]", "model")
    if body.insecure:
        note(request, "without effect: insecure")
    lines = _lines(name)
    if body.stream is not False:
        return LineStream(lines)
    async for _ in lines:
        pass
    return answer_json({"status": "success"})


async def _lines(name: str) -> AsyncIterator[bytes]:
    loop, news = asyncio.get_running_loop(), asyncio.Queue[dict[str, Any] | None]()
    told = [0]

    def put(value: dict[str, Any] | None) -> None:
        loop.call_soon_threadsafe(news.put_nowait, value)

    def progress(done: int, total: int, what: str) -> None:
        if done < told[0] or done - told[0] >= _EVERY or done >= total:
            told[0] = done
            put({"status": f"pulling {what}", "digest": what, "total": total, "completed": done})

    def work() -> None:
        try:
            hub.pull(name, lambda text: put({"status": text}), progress)
        finally:
            put(None)

    working = asyncio.ensure_future(asyncio.to_thread(work))
    yield line({"status": "pulling manifest"})
    while (found := await news.get()) is not None:
        yield line(found)
    await working
    yield line({"status": "success"})
