"""From an opened model to a scheduler: a cache with room for several answers."""

from __future__ import annotations

from typing import Any

from ggq.errors import UsageError
from ggq.runtime.batching.savings import Savings
from ggq.runtime.batching.scheduler import Scheduler
from ggq.runtime.cache.layout import PAGE

__all__ = ["make_scheduler"]


def make_scheduler(model: Any, *, n_slots: int = 4, max_waiting: int = 64) -> Scheduler:
    """Return a scheduler with room for ``n_slots`` answers of the model's context each.

    The cache is allocated for all of them: call it before anything else evaluates tokens.
    """
    if "engine" in model.__dict__:
        raise UsageError("the model's cache is already allocated")
    per_answer = model.n_ctx
    model.n_ctx = -(-per_answer // PAGE) * PAGE * n_slots
    if model.draft_model is not None:
        model.draft_model.n_ctx = model.n_ctx
    return Scheduler(
        model.engine,
        model.tokenizer,
        n_slots=n_slots,
        n_ctx=per_answer,
        max_waiting=max_waiting,
        savings=Savings(model.speculation, model.disk),
    )
