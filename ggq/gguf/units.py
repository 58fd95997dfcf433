"""Byte sizes as people write and read them, decimal like model hubs; knows no files."""

from __future__ import annotations

import re

from ggq.errors import UsageError, printable

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_BINARY = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B?", re.IGNORECASE)


def parse_size(text: str) -> int:
    """Return the bytes of "500M", "4.5G" (decimal) or "2GiB" (binary); raises UsageError."""
    match = _SIZE.fullmatch(text.strip())
    if match is None or (match[3] and not match[2]):
        raise UsageError(f"'{printable(text)}' is no size; write 500M, 4.5G or 2GiB")
    unit = match[2].upper()
    size = int(float(match[1]) * (_BINARY if match[3] else _UNITS)[unit])
    if size < 1:
        raise UsageError(f"'{printable(text)}': a size is one byte at least")
    return size


def bytes_of(size: int | str) -> int:
    """Return a size that is a number of bytes already, or text for `parse_size`."""
    if isinstance(size, str):
        return parse_size(size)
    if size < 1:
        raise UsageError(f"'{size}': a size is one byte at least")
    return int(size)


def format_size(n_bytes: float) -> str:
    """Return bytes in decimal units with one digit after the point."""
    if n_bytes < 1000:
        return f"{n_bytes:.0f} B"
    value, unit = n_bytes / 1000, "kB"
    for larger in ("MB", "GB", "TB"):
        if value >= 1000:
            value, unit = value / 1000, larger
    return f"{value:.1f} {unit}"
