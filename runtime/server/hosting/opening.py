"""A model's way into memory and out of it. It blocks: it is called on threads of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ggq.runtime.cache.sizes import cache_bytes
from ggq.runtime.model import Model, load
from ggq.runtime.server.service import Service
from ggq.runtime.server.settings import Settings
from ggq.runtime.server.slots import make_scheduler

__all__ = ["Opener", "close_service"]


@dataclass(frozen=True)
class Opener:
    """How every model of a server is opened; ``options`` are `ggq.load`'s."""

    settings: Settings
    options: Mapping[str, Any] = field(default_factory=dict)
    n_slots: int = 4
    max_waiting: int = 64
    source: Callable[[Path], Any] = lambda path: path  # what `ggq.load` is given of a file

    def open(self, path: Path) -> Model:
        """Return the model with its weights mapped; it takes no memory yet."""
        return load(self.source(path), **self.options)

    def needs(self, model: Model) -> int:
        """Return the bytes that a model takes: its weights and its cache, if all of it is used."""
        weights = sum(tensor.nbytes for tensor in model.gguf.tensors.values())
        if model.gallery is not None:
            weights += model.gallery.eyes.nbytes
        kind = self.options.get("cache_type", "f16")
        n_positions = model.n_ctx * (self.n_slots if model.hparams.causal else 1)
        return weights + cache_bytes(model.hparams.memories, n_positions, kind)

    def start(self, model: Model, name: str) -> Service:
        """Return a model that answers: its cache allocated, its kernels compiled."""
        scheduler = make_scheduler(model, n_slots=self.n_slots, max_waiting=self.max_waiting)
        scheduler.engine.warm_up()
        service = Service(model, scheduler, replace(self.settings, model_id=name))
        scheduler.start()
        return service


def close_service(service: Service) -> None:
    """End a model's threads and give its memory back; nothing may use it any more."""
    service.scheduler.close()
    service.model.close()
