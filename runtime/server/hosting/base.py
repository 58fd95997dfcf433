"""What endpoints know of a server's models: their names, and how to have one for a while."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from pathlib import Path

from ggq.runtime.batching.scheduler import Scheduler
from ggq.runtime.batching.stats import SchedulerStats
from ggq.runtime.server.errors import APIError
from ggq.runtime.server.service import Service
from ggq.runtime.server.settings import Settings

__all__ = ["LOADED", "LOADING", "PATIENCE", "UNLOADED", "Host", "Listed", "no_such_model"]

PATIENCE = 0.3  # seconds for a step to end when the server does
LOADED, LOADING, UNLOADED = "loaded", "loading", "unloaded"


@dataclass(frozen=True)
class Listed:
    """A model that may be asked for, and how things stand with it.

    ``size``: bytes of its file, ``memory``: bytes that it takes while loaded, ``expires``: seconds
    since 1970 at which it is unloaded if nobody asks for it, None for never.
    """

    name: str
    path: Path
    size: int
    state: str
    memory: int = 0
    service: Service | None = None
    expires: float | None = None


class Host(ABC):
    """A server's models. Its methods are called on the event loop's thread."""

    many = False  # whether models are loaded and unloaded

    def __init__(self, settings: Settings) -> None:
        """Take what holds for all models."""
        self.settings = settings
        self.past = SchedulerStats()  # of models that are unloaded

    @abstractmethod
    async def use(self, name: str | None, keep: float | None = None) -> Service:
        """Return a model, loaded where it was not; it stays until it is given back.

        ``keep``: seconds that it stays after that, less than 0 for ever, None as usual. APIError
        404 for an unknown name, 503 where it does not fit in the memory.
        """

    @abstractmethod
    def give_back(self, service: Service) -> None:
        """End one use of a model."""

    @abstractmethod
    async def listing(self) -> list[Listed]:
        """Return all models, by name."""

    @abstractmethod
    async def unload(self, name: str) -> None:
        """Have a model leave the memory once its answers are written; APIError where it cannot."""

    @abstractmethod
    def services(self) -> list[Service]:
        """Return the loaded models."""

    async def find(self, name: str) -> Listed:
        """Return one model; APIError 404 for an unknown name."""
        wanted = plain_name(name)
        for listed in await self.listing():
            if plain_name(listed.name) == wanted:
                return listed
        raise no_such_model(name)

    def schedulers(self) -> list[Scheduler]:
        """Return the schedulers of the loaded models."""
        return [service.scheduler for service in self.services()]

    def stats(self) -> SchedulerStats:
        """Return the counters of all models since the start."""
        total = SchedulerStats()
        for stats in (self.past, *(s.stats for s in self.schedulers())):
            add_stats(total, stats)
        return total

    def start(self) -> None:
        """Begin to work."""
        for scheduler in self.schedulers():
            scheduler.start()

    def stop(self) -> None:
        """End all answers with an error, at once; threads are not waited for."""
        for service in self.services():
            service.stop()

    def close(self) -> None:
        """End the threads; one that is in a long step ends after it."""
        for scheduler in self.schedulers():
            scheduler.close(PATIENCE)


def add_stats(total: SchedulerStats, more: SchedulerStats) -> None:
    """Add counters to others."""
    for field in fields(SchedulerStats):
        setattr(total, field.name, getattr(total, field.name) + getattr(more, field.name))


def plain_name(name: str) -> str:
    """Return a name as it is compared: Ollama's clients add ``:latest``, and case means nothing."""
    return name.strip().lower().removesuffix(":latest")


def no_such_model(name: str) -> APIError:
    """Return the answer to an unknown name."""
    message = f"the model {name[:100]} does not exist"
    return APIError(404, message, "model", "model_not_found")
