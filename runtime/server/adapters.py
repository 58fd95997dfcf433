"""GET and POST /lora-adapters: a model's adapters and their scales, as llama-server has them."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from ggq.runtime.server.http import answer_json, read, service_of
from ggq.runtime.server.schema import AdapterScale
from ggq.runtime.server.service import mix_of

__all__ = ["change_adapters", "show_adapters"]


async def show_adapters(request: Request) -> Response:
    """Answer GET /lora-adapters."""
    service = await service_of(request)
    scales = zip(service.model.adapters, service.scheduler.engine.mix, strict=True)
    listed = [
        {"id": i, "path": str(adapter.path), "scale": scale}
        for i, (adapter, scale) in enumerate(scales)
    ]
    return answer_json(listed)


async def change_adapters(request: Request) -> Response:
    """Answer POST /lora-adapters: the scales of requests from now on that say none themselves."""
    chosen = await read(request, list[AdapterScale])
    service = await service_of(request)
    service.scheduler.engine.mix = mix_of(service.model.adapters, chosen)
    return answer_json({"success": True})
