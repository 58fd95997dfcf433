"""How long a model stays in memory, as Ollama writes it: "5m", "1h30m", seconds, -1 for ever."""

from __future__ import annotations

import math
import re

from ggq.errors import UsageError, printable

__all__ = ["parse_duration"]

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")
_NUMBER = re.compile(r"\d+(\.\d*)?|\.\d+")
_LONGEST = 3e8  # seconds, ten years: what is longer is for ever


def parse_duration(given: str | float) -> float:
    """Return seconds of a duration as Go writes it, or of a number; less than 0 is for ever.

    UsageError where it is neither.
    """
    text = str(given).strip() if not isinstance(given, bool) else ""
    sign = -1.0 if text.startswith("-") else 1.0
    body = text.lstrip("+-") if text[:2] not in ("--", "++", "+-", "-+") else ""
    parts = _PART.findall(body)
    if _NUMBER.fullmatch(body):
        seconds = float(body)
    elif parts and "".join(number + unit for number, unit in parts) == body:
        seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    else:
        shown = printable(given, 40)
        raise UsageError(f"'{shown}' is no duration: 5m, 1h30m, a number of seconds, or -1")
    if sign < 0 and seconds:
        return -1.0
    return seconds if math.isfinite(seconds) and seconds <= _LONGEST else -1.0
