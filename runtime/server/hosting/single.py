"""The one model of a server, by whatever name it is asked for."""

from __future__ import annotations

from pathlib import Path

from ggq.runtime.server.errors import APIError
from ggq.runtime.server.hosting.base import LOADED, Host, Listed
from ggq.runtime.server.service import Service

__all__ = ["OneModel"]


class OneModel(Host):
    """A model that is there from the start to the end; requests may call it as they like."""

    def __init__(self, service: Service) -> None:
        """Take the model."""
        super().__init__(service.settings)
        self.service = service

    async def use(self, name: str | None, keep: float | None = None) -> Service:
        """Return the model."""
        return self.service

    def give_back(self, service: Service) -> None:
        """Do nothing: it stays."""

    async def listing(self) -> list[Listed]:
        """Return the model."""
        model, cache = self.service.model, self.service.scheduler.engine.cache
        size = model.gguf.nbytes
        path, name = Path(model.gguf.path), self.settings.model_id
        return [Listed(name, path, size, LOADED, size + cache.nbytes, self.service)]

    async def unload(self, name: str) -> None:
        """Refuse: without it there is no server."""
        raise APIError(400, "this server serves one model, from its start to its end", "model")

    def services(self) -> list[Service]:
        """Return the model."""
        return [self.service]
