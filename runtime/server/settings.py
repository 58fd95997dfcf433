"""What a server is told when it starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Settings"]


@dataclass(frozen=True)
class Settings:
    """``hosts``: names allowed in the Host header, empty for any; ``origins``: allowed by CORS."""

    model_id: str = "model"
    api_keys: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    max_body: int = 16 << 20
    max_tokens: int | None = None  # most tokens of an answer
    ping_seconds: float = 10.0
    body_seconds: float = 60.0  # a body that has not arrived by then is given up
    metrics: bool = True
    sampling: Mapping[str, Any] = field(default_factory=dict)  # of requests that do not say
