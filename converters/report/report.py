"""What a conversion did: errors of each tensor, outliers, values beyond F16, its predictions.

Written as JSON or as one page (page.py), by the file's suffix. It knows no pass.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from ggq.converters.encode import F16_MAX
from ggq.errors import UsageError, printable
from ggq.gguf import open_gguf, spec

__all__ = [
    "OUTLIER",
    "Finding",
    "HeldBack",
    "findings",
    "held_back",
    "report_path",
    "worst",
    "write_report",
]

SUFFIXES = (".html", ".json")
SAMPLE_ROWS = 512
HELD_WINDOWS = 8
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


@dataclass(frozen=True)
class HeldBack:
    """The file's predictions beside the original's: statistics of `summary`, where measured.

    ``calibrated``: the passes saw these windows; ``power``: mean squared input of each matrix's
    columns in the original, by tensor name.
    """

    dataset: str
    positions: int
    calibrated: bool
    figures: dict[str, Any]
    power: dict[str, np.ndarray] = field(repr=False, default_factory=dict)


def report_path(path: str | Path) -> Path:
    """Return where a report may be written, checked before it is made; UsageError."""
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"report {printable(path)}: a name in {' or '.join(SUFFIXES)}")
    if not path.parent.is_dir():
        raise UsageError(f"report {printable(path)}: {printable(path.parent)} is no folder")
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise UsageError(f"report {printable(path)}: cannot be written")
    return path


def held_back(job: Any, path: str | Path, passes: Sequence[Any] = ()) -> HeldBack | None:
    """Compare the written file with the original on windows that ``passes`` did not calibrate on.

    The file runs as ggq runs it, the original in float32; None where torch is not installed.
    """
    if find_spec("torch") is None:
        return None
    from ggq.converters.prepasses.original import original_rows
    from ggq.runtime.measure.evaluation import compare_rows, scored_logits, summary
    from ggq.runtime.model import load

    windows, dataset, calibrated = _windows(job, passes)
    base, power = original_rows(job, windows)
    rows = []
    with load(path, n_ctx=windows.shape[1], cache_type="f32") as model:
        for ids, want in zip(windows, base, strict=True):
            rows.append(compare_rows(scored_logits(model, ids), want, ids[len(ids) // 2 + 1 :]))
    figures = asdict(summary(np.concatenate(rows)))
    return HeldBack(dataset, sum(map(len, rows)), calibrated, figures, power)


def _windows(job: Any, passes: Sequence[Any]) -> tuple[np.ndarray, str, bool]:
    """Return windows to compare on, their text, and whether the passes saw them all."""
    from ggq.converters.calibration import calibrate, sample

    own = [p for p in passes if hasattr(p, "calibration")]
    text = own[0].calibration if own else None
    n_ctx = own[0].n_ctx if own else 512
    found = calibrate(job, text, n_ctx, starts=True)
    seen: set[int] = set()
    numbers = np.arange(len(found.windows))
    for one in own:
        limit = -(-one.tokens // one.n_ctx) if one.tokens else len(numbers)
        seen |= set(sample(numbers, limit).tolist())
    left = np.array([i for i in numbers if i not in seen], np.int64)
    picked = sample(left if len(left) else numbers, HELD_WINDOWS)
    return found.windows[picked], found.dataset, not len(left)


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


def write_report(
    path: str | Path,
    found: list[Finding],
    facts: Mapping[str, Any],
    held: HeldBack | None = None,
) -> None:
    """Write ``found``, the conversion's ``facts`` and the predictions, as .json or one HTML page.

    UsageError where it cannot be written (see `report_path`).
    """
    from ggq.converters.report.page import page

    path = report_path(path)
    if path.suffix.lower() == ".json":
        told: dict[str, Any] = {}
        if held is not None:
            told["held_back"] = {k: v for k, v in vars(held).items() if k != "power"}
        hints = [hint for _, hint, _ in worst(found)]
        tensors = [asdict(f) for f in found]
        text = json.dumps({**facts, **told, "suggested": hints, "tensors": tensors}, indent=1)
    else:
        text = page(found, facts, held)
    try:
        path.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"report {printable(path)}: {error.strerror}") from None
