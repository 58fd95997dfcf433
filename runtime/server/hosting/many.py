"""Many models, loaded when they are asked for, unloaded when nobody asks or the memory is needed.

Loading runs on threads; all else here happens on the event loop's, between its awaits.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ggq.errors import printable
from ggq.gguf.units import format_size
from ggq.runtime.server.errors import APIError
from ggq.runtime.server.hosting.base import (
    LOADED,
    LOADING,
    PATIENCE,
    UNLOADED,
    Host,
    Listed,
    add_stats,
    no_such_model,
)
from ggq.runtime.server.hosting.catalogue import Catalogue
from ggq.runtime.server.hosting.opening import Opener, close_service
from ggq.runtime.server.service import Service

__all__ = ["ManyModels"]


@dataclass(eq=False)
class _Entry:
    """A model that is in memory, on its way there, or on its way out."""

    name: str
    path: Path
    size: int
    keep: float
    memory: int = 0
    service: Service | None = None
    loading: asyncio.Task[None] | None = None
    users: int = 0  # requests that have it or wait for it
    used: float = 0.0  # time.monotonic() when the last user left
    timer: asyncio.TimerHandle | None = None
    leaving: asyncio.Task[None] | None = None
    idle: asyncio.Event = field(default_factory=asyncio.Event)


class ManyModels(Host):
    """Models by name. ``keep``: seconds that one stays unused, less than 0 for ever.

    ``budget``: bytes that all may take, None for no bound. Where a model does not fit, those that
    were used least recently go: new requests for them wait until the newcomer is there, so that no
    model waits for ever.
    """

    many = True

    def __init__(
        self, catalogue: Catalogue, opener: Opener, keep: float = 300.0, budget: int | None = None
    ) -> None:
        """Take which models there are and how each is opened."""
        super().__init__(opener.settings)
        self._catalogue, self._opener = catalogue, opener
        self._keep, self._budget = keep, budget
        self._entries: dict[str, _Entry] = {}
        self._placing: asyncio.Lock | None = None  # who finds room for a model
        self._tasks: set[asyncio.Task[None]] = set()

    async def use(self, name: str | None, keep: float | None = None) -> Service:
        """Return a model, loaded where it was not."""
        known = await self._resolve(name)
        while (leaving := self._leaving(known[0])) is not None:
            await asyncio.shield(leaving)
        entry = self._entries.setdefault(known[0], _Entry(*known, self._keep))
        entry.users += 1
        entry.idle.clear()
        if entry.timer is not None:
            entry.timer.cancel()
            entry.timer = None
        try:
            if entry.service is None:
                if entry.loading is None:
                    entry.loading = self._task(self._load(entry))
                await asyncio.shield(entry.loading)
        except BaseException:
            self._leave(entry)
            raise
        entry.keep = self._keep if keep is None else keep
        assert entry.service is not None
        return entry.service

    def give_back(self, service: Service) -> None:
        """End one use of a model; the last one starts its clock."""
        self._leave(self._entries[service.settings.model_id])

    async def listing(self) -> list[Listed]:
        """Return all models: those that can be loaded, and those that are, whose file has gone."""
        known = await asyncio.to_thread(self._catalogue.models)
        for entry in self._entries.values():
            known.setdefault(entry.name, (entry.path, entry.size))
        return [
            self._listed(name, path, size)
            for name, (path, size) in sorted(known.items())
            if name in self._entries or path.exists()
        ]

    async def find(self, name: str) -> Listed:
        """Return one model; APIError 404 for an unknown name."""
        return self._listed(*await self._resolve(name))

    async def unload(self, name: str) -> None:
        """Have a model leave the memory once its answers are written."""
        known = await self._resolve(name)
        entry = self._entries.get(known[0])
        if entry is not None:
            self._send_away(entry)

    def services(self) -> list[Service]:
        """Return the loaded models."""
        return [e.service for e in self._entries.values() if e.service is not None]

    def close(self) -> None:
        """Unload all models."""
        for task in self._tasks:
            task.cancel()
        for service in self.services():
            if service.scheduler.close(PATIENCE):
                close_service(service)

    # -- names

    async def _resolve(self, name: str | None) -> tuple[str, Path, int]:
        """Return a model's name, file and bytes; without a name the only one, or the one loaded."""
        if name:
            entry = self._entries.get(name)
            if entry is not None:
                return entry.name, entry.path, entry.size
            found = await asyncio.to_thread(self._catalogue.resolve, name)
            if found is None:
                raise no_such_model(name)
            return found
        loaded = [e for e in self._entries.values() if e.service is not None]
        if len(loaded) == 1:
            return loaded[0].name, loaded[0].path, loaded[0].size
        models = await asyncio.to_thread(self._catalogue.models)
        if len(models) != 1:
            there = ", ".join(printable(n, 80) for n in sorted(models)[:8]) or "none, see ggq pull"
            raise APIError(400, f"model: is needed; there are: {there}", "model")
        ((only, (path, size)),) = models.items()
        return only, path, size

    def _listed(self, name: str, path: Path, size: int) -> Listed:
        entry = self._entries.get(name)
        if entry is None or (entry.service is None and entry.loading is None):
            return Listed(name, path, size, UNLOADED)
        if entry.service is None:
            return Listed(name, path, size, LOADING, entry.memory)
        expires = None
        if entry.keep >= 0:
            since = 0.0 if entry.users else time.monotonic() - entry.used
            expires = time.time() + entry.keep - since
        return Listed(name, path, size, LOADED, entry.memory, entry.service, expires)

    # -- in and out

    async def _load(self, entry: _Entry) -> None:
        model = None
        try:
            model = await asyncio.to_thread(self._opener.open, entry.path)
            await self._make_room(entry, self._opener.needs(model))
            entry.service = await asyncio.to_thread(self._opener.start, model, entry.name)
        except BaseException:
            if model is not None:
                model.close()
            self._forget(entry)
            raise
        finally:
            entry.loading = None
        if not entry.users:  # who asked for it has gone
            self._rest(entry)

    async def _make_room(self, entry: _Entry, needs: int) -> None:
        """Wait until a model of so many bytes fits, and count it as there."""
        if self._budget is not None and needs > self._budget:
            has = format_size(self._budget)
            message = f"{printable(entry.name)} needs {format_size(needs)} of memory; all models"
            raise APIError(503, f"{message} may take {has} (--memory; --ctx, --parallel: less)")
        self._placing = self._placing or asyncio.Lock()
        async with self._placing:
            while self._budget is not None:
                taken = sum(e.memory for e in self._entries.values())
                if taken + needs <= self._budget:
                    break
                going = [e.leaving for e in self._entries.values() if e.leaving is not None]
                if not going:
                    going = [self._oldest(entry)]
                await asyncio.wait(going, return_when=asyncio.FIRST_COMPLETED)
            entry.memory = needs

    def _oldest(self, newcomer: _Entry) -> asyncio.Task[None]:
        """Send away what was used least recently, rather a model that nobody has now."""
        there = [e for e in self._entries.values() if e.memory and e is not newcomer]
        loaded = [e for e in there if e.service is not None]
        if not loaded:  # on their way in: who waits for them first gets them
            return next(e.loading for e in there if e.loading is not None)
        return self._send_away(min(loaded, key=lambda e: (e.users > 0, e.used)))

    def _leave(self, entry: _Entry) -> None:
        entry.users -= 1
        if not entry.users:
            self._rest(entry)

    def _rest(self, entry: _Entry) -> None:
        """Start the clock of a model that nobody has."""
        entry.used = time.monotonic()
        entry.idle.set()
        if entry.service is None or entry.leaving is not None or entry.keep < 0:
            return
        loop = asyncio.get_running_loop()
        entry.timer = loop.call_later(entry.keep, self._send_away, entry)

    def _leaving(self, name: str) -> asyncio.Task[None] | None:
        entry = self._entries.get(name)
        return None if entry is None else entry.leaving

    def _send_away(self, entry: _Entry) -> asyncio.Task[None]:
        if entry.leaving is None:
            entry.leaving = self._task(self._unload(entry))
        return entry.leaving

    async def _unload(self, entry: _Entry) -> None:
        if entry.loading is not None:
            await asyncio.wait([entry.loading])
        if entry.users:
            await entry.idle.wait()
        if entry.timer is not None:
            entry.timer.cancel()
        service, entry.service = entry.service, None
        if service is not None:
            await asyncio.to_thread(close_service, service)
            add_stats(self.past, service.scheduler.stats)
            del service
            gc.collect()
        self._forget(entry)

    def _forget(self, entry: _Entry) -> None:
        if self._entries.get(entry.name) is entry:
            del self._entries[entry.name]

    def _task(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # whoever waits for it is told
