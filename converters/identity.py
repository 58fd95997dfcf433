"""One short name for all that decides the bytes of a conversion: what is unfinished belongs to it.

Work that was stopped, and work that is done elsewhere, is told by it from that of another source,
plan or version. It knows nothing of what is kept under the name.
"""

from __future__ import annotations

import hashlib
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

import ggq

__all__ = ["identity", "unfinished"]


def identity(job: Any, *facts: Any) -> str:
    """Return twelve hex digits of a planned conversion and what else decides, by its ``repr``.

    A few rows of every tensor are read: names and shapes do not tell two trainings apart.
    """
    shapes = sorted((n, tuple(t.shape), t.type_name) for n, t in job.tensors.items())
    key = hashlib.sha256(repr((ggq.__version__, shapes, job.plan.types, facts)).encode())
    for name in sorted(job.tensors):
        key.update(_sample(job.tensors[name]))
    return key.hexdigest()[:12]


def unfinished(job: Any, *facts: Any) -> Path:
    """Return the folder beside the output for what is not finished yet; it is not made."""
    out = Path(job.out)
    return out.with_name(f"{out.name}.unfinished-{identity(job, *facts)}")


def _sample(tensor: Any) -> bytes:
    """Return the bytes of a few rows, float32: a merged adapter changes every one of its matrix."""
    n_rows = prod(tensor.shape[:-1])
    rows = sorted({0, n_rows // 2, n_rows - 1})
    return b"".join(np.ascontiguousarray(tensor.read(r, r + 1), np.float32).tobytes() for r in rows)
