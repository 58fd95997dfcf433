"""What a conversion did to each tensor: errors, outliers, values beyond F16, better types."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from ggq.converters.encode import F16_MAX
from ggq.gguf import open_gguf, spec

__all__ = ["OUTLIER", "Finding", "findings", "worst"]

SAMPLE_ROWS = 512
OUTLIER = 20.0  # a column this many times the median column's peak stands out


@dataclass(frozen=True)
class Finding:
    """One tensor. ``error``: root mean square error over the root mean square of the source;
    ``weighted``: the same with each column's importance, None where it was not measured."""

    name: str
    type_name: str
    nbytes: int
    error: float
    weighted: float | None
    peak: float
    outlier: float  # the largest column peak over the median one
    beyond_f16: bool


def findings(
    path: str | Path, source: Mapping[str, Any], importance: Mapping[str, np.ndarray] | None = None
) -> list[Finding]:
    """Compare a written file with the tensors it was made from, on a sample of their rows."""
    with open_gguf(path) as file:
        return [
            _finding(source[name], info, file.data(name), (importance or {}).get(name))
            for name, info in file.tensors.items()
            if name in source
        ]


def _finding(tensor: Any, info: Any, data: np.ndarray, power: np.ndarray | None) -> Finding:
    from ggq import quants

    n_rows = prod(tensor.shape[:-1])
    picked = np.unique(np.linspace(0, n_rows - 1, min(SAMPLE_ROWS, n_rows)).astype(int))
    x = np.concatenate([tensor.read(int(r), int(r) + 1) for r in picked]).astype(np.float64)
    made = quants.by_id(info.type_id).dequantize(np.ascontiguousarray(data[picked]))
    error = (made - x) ** 2
    columns = np.abs(x).max(0)
    peak = float(columns.max())
    weights = None if power is None or power.size != x.shape[1] else power
    return Finding(
        name=tensor.name,
        type_name=spec.type_name(info.type_id),
        nbytes=int(info.nbytes),
        error=_relative(error, x**2),
        weighted=None if weights is None else _relative(error * weights, x**2 * weights),
        peak=peak,
        outlier=peak / max(float(np.median(columns)), 1e-30) if len(x) > 1 else 1.0,
        beyond_f16=peak > F16_MAX,
    )


def _relative(error: np.ndarray, square: np.ndarray) -> float:
    return float(np.sqrt(error.sum() / max(float(square.sum()), 1e-300)))


def worst(found: list[Finding], n: int = 10) -> list[tuple[Finding, str, int]]:
    """Return the tensors that hurt most, the override that would help each, the bytes it adds."""
    from ggq import quants

    ranked = sorted(found, key=lambda f: -(f.error if f.weighted is None else f.weighted))
    made = []
    for f in ranked:
        better = quants.get(f.type_name).better
        if better is None or not f.error:
            continue
        ratio = quants.get(better).bits_per_weight / quants.get(f.type_name).bits_per_weight
        hint = f"--tensor-type '^{re.escape(f.name)}$={better}'"
        made.append((f, hint, round(f.nbytes * (ratio - 1))))
    return made[:n]
