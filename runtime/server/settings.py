"""What a server is told when it starts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["ReasoningFormat", "Settings"]

ReasoningFormat = Literal["auto", "none", "deepseek", "deepseek-legacy"]


@dataclass(frozen=True)
class Settings:
    """``hosts``: names allowed in the Host header, empty for any; ``origins``: allowed by CORS.

    The last ones hold for requests that do not say: ``sampling``, ``n_predict`` (tokens of an
    answer, None for no limit), ``template`` (in place of the model's, as `Service.template` reads
    it), ``template_kwargs``, ``reasoning_format`` and ``reasoning_budget`` (tokens of thoughts, -1
    for no limit).
    """

    model_id: str = "model"
    api_keys: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    max_body: int = 16 << 20
    max_tokens: int | None = None  # most tokens of an answer
    ping_seconds: float = 10.0
    body_seconds: float = 60.0  # a body that has not arrived by then is given up
    metrics: bool = True
    fetch: Callable[[str], bytes] | None = None  # what gets pictures of URLs
    prefix: str = ""  # that all paths begin with
    sampling: Mapping[str, Any] = field(default_factory=dict)
    n_predict: int | None = None
    template: str | None = None
    template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    reasoning_format: ReasoningFormat = "auto"
    reasoning_budget: int = -1
