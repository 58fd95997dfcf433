"""What a scheduler has done, counted."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["SchedulerStats"]


@dataclass
class SchedulerStats:
    """Counters since the start; seconds are the engine's."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    steps: int = 0
    busy_seconds: float = 0.0
    finished: int = 0
    cancelled: int = 0
    failed: int = 0
    refused: int = 0
