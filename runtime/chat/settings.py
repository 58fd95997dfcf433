"""What ``/set`` can change: sampling, the length of answers, where they end."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ggq.errors import UsageError, printable
from ggq.runtime.sampling import SamplingParams
from ggq.runtime.sampling.params import choose

__all__ = ["Settings"]


@dataclass
class Settings:
    """What ``/set`` can change: sampling flags that the user set, and the length of answers."""

    flags: dict[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)  # the file's general.sampling.*
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()

    def params(self) -> SamplingParams:
        """Return the sampling parameters; UsageError or FormatError for wrong ones."""
        return SamplingParams.resolve(self.flags, self.metadata)

    def lines(self) -> Iterator[str]:
        """Yield each value and where it comes from."""
        for name, (value, source) in choose(self.flags, self.metadata).items():
            if isinstance(value, (int, float, str)) or value is None:
                yield f"{name} = {value}{f'  ({source})' if source else ''}"
        yield f"max_tokens = {self.max_tokens}"

    def change(self, name: str, text: str) -> None:
        """Set one value from text; "default" takes it back. Raises UsageError."""
        name = name.replace("-", "_")
        name = {"temp": "temperature", "n": "max_tokens"}.get(name, name)
        value = None if text == "default" else _parsed(text)
        if name == "max_tokens":
            if value is not None and not isinstance(value, int):
                raise UsageError(f"max_tokens: {printable(text)} is not a whole number")
            self.max_tokens = value
            return
        changed = {k: v for k, v in {**self.flags, name: value}.items() if v is not None}
        known = {f.name for f in dataclasses.fields(SamplingParams)}
        if name not in known - {"logit_bias", "dry_breakers"}:
            raise UsageError(f"no setting {printable(name)!r}; /set shows them all")
        SamplingParams.resolve(changed, self.metadata)
        self.flags = changed


def _parsed(text: str) -> Any:
    """Return ``text`` as a number if it is one."""
    with contextlib.suppress(ValueError):
        return int(text)
    with contextlib.suppress(ValueError):
        return float(text)
    return text
