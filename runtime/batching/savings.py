"""What spares a scheduler work without changing an answer."""

from __future__ import annotations

from dataclasses import dataclass

from ggq.runtime.cache.disk import DiskCache
from ggq.runtime.generation.drafting.speculation import Speculation

__all__ = ["Savings"]


@dataclass(frozen=True)
class Savings:
    """``speculation`` guesses how answers go on, ``disk`` keeps what prompts computed."""

    speculation: Speculation | None = None
    disk: DiskCache | None = None
