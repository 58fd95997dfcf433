"""A written file's predictions beside the original's, on windows that no pass has seen.

It runs both and compares; what a pass did is not known here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["HeldBack", "held_back"]

HELD_WINDOWS = 8


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
    from ggq.converters.calibration.text import calibrate, sample

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
