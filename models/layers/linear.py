"""Linear maps and norms by name, with the biases that a file may hold; it knows no layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["layer_norm", "linear", "optional", "rms_norm", "split_linear"]


def optional(ops: Any, name: str) -> str | None:
    """Return ``name`` where the file holds that tensor."""
    return name if ops.has(name) else None


def linear(ops: Any, x: Any, name: str, rows: tuple[int, int] | None = None) -> Any:
    """Return x @ W.T + b for ``name``.weight and, where the file has it, ``name``.bias."""
    return ops.linear(x, f"{name}.weight", bias=optional(ops, f"{name}.bias"), rows=rows)


def split_linear(ops: Any, x: Any, name: str, widths: Sequence[int]) -> list[Any]:
    """Return the outputs of a weight that holds several ones, of ``widths`` rows each."""
    ends = [sum(widths[: i + 1]) for i in range(len(widths))]
    return [
        linear(ops, x, name, (end - width, end)) for width, end in zip(widths, ends, strict=True)
    ]


def rms_norm(ops: Any, x: Any, name: str, eps: float, width: int | None = None) -> Any:
    """Return x / rms(x) * ``name``.weight, over stretches of ``width`` columns."""
    return ops.norm(x, f"{name}.weight", eps, kind="rms", width=width)


def layer_norm(ops: Any, x: Any, name: str, eps: float) -> Any:
    """Return ``x`` with mean 0 and variance 1, times ``name``.weight plus ``name``.bias."""
    return ops.shift(ops.norm(x, f"{name}.weight", eps, kind="layer"), f"{name}.bias")
