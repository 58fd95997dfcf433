"""Chooses a type per tensor for a number of bytes: what each type would cost in KL divergence.

The cost of an error is its square, weighted by the inputs' power per column and by the squared
gradient of the model's own log-likelihood per row (Fisher information): half of it estimates the
divergence. Types then follow from one price per byte. It knows types only by their names.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil, prod
from pathlib import Path
from typing import Any

import numpy as np

from ggq.converters.calibration.text import Calibration
from ggq.converters.calibration.weights import SourceWeights, hparams_of
from ggq.errors import FormatError, ModelError, UsageError, printable
from ggq.outputs import write_text

__all__ = [
    "Choice",
    "allocate",
    "costs",
    "fixed_bytes",
    "overrides",
    "read_plan",
    "write_plan",
]

SAMPLE_ROWS = 256
SLOW = 8  # of the sample, every so many rows for types that are searched slowly
ALIGNMENT = 32
LIGHT = 2.5  # bits a weight: types of fewer ruin a matrix that was not calibrated

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Choice:
    """One type for one tensor: its bytes in the file and its cost, nats a token."""

    type_name: str
    nbytes: int
    cost: float


@dataclass
class _Power:
    """``columns``: mean squared inputs; ``rows``: mean squared gradients of the outputs."""

    columns: np.ndarray
    rows: np.ndarray


def costs(
    job: Any, calibration: Calibration, light: bool = False, progress: Progress | None = None
) -> dict[str, list[Choice]]:
    """Return the choices for every tensor whose type is open, cheapest bytes first.

    ``light``: types that want importance, and those below `LIGHT`, are among them for the
    matrices of blocks.
    """
    wanted = _open(job, light)
    power = _measure(job, calibration)
    found = {}
    for done, name in enumerate(wanted):
        kinds = _candidates(job, name, light)
        found[name] = sorted(_choices(job.tensors[name], kinds, power.get(name)), key=_by_bytes)
        if progress:
            progress(done + 1, len(wanted), name)
    return found


def _by_bytes(choice: Choice) -> int:
    return choice.nbytes


def _open(job: Any, light: bool) -> list[str]:
    """Return the tensors that ``job`` would quantize and whose type the user did not name."""
    from ggq import quants

    return [
        name
        for name, kind in job.plan.types
        if (hasattr(quants.get(kind), "grid") or kind in _candidates(job, name, light))
        and name not in job.plan.asked
        and _candidates(job, name, light)
    ]


def _candidates(job: Any, name: str, light: bool) -> tuple[str, ...]:
    """Return the types to choose from for a tensor, by the most that divides its rows."""
    from ggq import quants

    width = job.tensors[name].shape[-1]
    sizes = {size for kind in quants.all() for size in kind.candidate_for}
    fitting = max((size for size in sizes if width % size == 0), default=0)
    light = light and name.startswith("blk.")  # what no linear multiplies has no importance
    found = [
        kind
        for kind in quants.all()
        if fitting in kind.candidate_for and (light or not _is_light(kind))
    ]
    ordered = sorted(found, key=lambda kind: (kind.bits_per_weight, -kind.ggml_id))
    return tuple(kind.name for kind in ordered)


def _is_light(kind: Any) -> bool:
    """Return whether a type is of use only where passes or a matrix know what counts."""
    return bool(kind.wants_importance or kind.bits_per_weight < LIGHT)


def _choices(tensor: Any, type_names: Sequence[str], power: _Power | None) -> Iterator[Choice]:
    """Yield what each type costs a tensor, from a sample of its rows."""
    from ggq import quants

    n_rows = prod(tensor.shape[:-1])
    picked = np.unique(np.linspace(0, n_rows - 1, min(SAMPLE_ROWS, n_rows)).astype(int))
    x = np.concatenate([tensor.read(int(r), int(r) + 1) for r in picked]).astype(np.float32)
    columns = np.ones(x.shape[1]) if power is None else power.columns
    rows = np.ones(1) if power is None else power.rows
    weight = rows[picked % len(rows)] if len(rows) > 1 else np.full(len(picked), rows[0])
    for name in type_names:
        kind = quants.get(name)
        some = slice(None, None, 1 if hasattr(kind, "grid") else SLOW)
        values = kind.dequantize(kind.quantize(x[some], columns.astype(np.float32)))
        error = (weight[some] * ((values - x[some]) ** 2 @ columns)).mean()
        yield Choice(name, _bytes(tensor.shape, name), 0.5 * float(error) * n_rows)


def _aligned(nbytes: int) -> int:
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


def _measure(job: Any, calibration: Calibration) -> dict[str, _Power]:
    """Run windows forward and back, labels drawn from the model's own predictions."""
    import torch

    from ggq.converters.prepasses.solving.curvature import gradients

    sums: dict[str, list[np.ndarray]] = {}

    def add(name: str, side: int, values: torch.Tensor) -> None:
        square = values.detach().double().square().sum(0).numpy()
        if not np.isfinite(square).all():
            what = ("inputs", "gradients")[side]
            raise ModelError(f"the {what} of {printable(name)} are not finite")
        pair = sums.setdefault(name, [np.zeros(0), np.zeros(0)])
        pair[side] = pair[side] + square if pair[side].size == square.size else square

    def on_linear(name: str, x: torch.Tensor, _: object, y: torch.Tensor) -> None:
        add(name, 0, x)
        y.register_hook(lambda gradient: add(name, 1, gradient))

    architecture, hp = hparams_of(job)
    gradients(SourceWeights(job.tensors), architecture, hp, calibration.windows, on_linear)
    n = calibration.n_tokens
    return {name: _Power(c / n, r / n) for name, (c, r) in sums.items() if r.size}


def allocate(
    found: dict[str, list[Choice]], budget: int, plain: dict[str, str] | None = None
) -> dict[str, str]:
    """Return the types of least total cost within ``budget`` bytes, which `room` found enough.

    One price per byte decides for all tensors (Lagrange), what is left is spent on the best
    upgrades. ``plain``: a mixture to keep where it fits and costs no more.
    """
    assert sum(c[0].nbytes for c in found.values()) <= budget, budget
    low, high = 0.0, 1.0
    while _total(_at_price(found, high)) > budget:
        high *= 4
    for _ in range(60):
        middle = (low + high) / 2
        if _total(_at_price(found, middle)) > budget:
            low = middle
        else:
            high = middle
    chosen = _spend(found, _at_price(found, high), budget)
    kept = {n: c for n, cs in found.items() for c in cs if c.type_name == (plain or {}).get(n)}
    if len(kept) == len(found) and _total(kept) <= budget and _cost(kept) <= _cost(chosen):
        chosen = kept
    return {name: choice.type_name for name, choice in chosen.items()}


def _cost(chosen: dict[str, Choice]) -> float:
    return sum(c.cost for c in chosen.values())


def _at_price(found: dict[str, list[Choice]], price: float) -> dict[str, Choice]:
    return {n: min(cs, key=lambda c: c.cost + price * c.nbytes) for n, cs in found.items()}


def _total(chosen: dict[str, Choice]) -> int:
    return sum(c.nbytes for c in chosen.values())


def _spend(
    found: dict[str, list[Choice]], chosen: dict[str, Choice], budget: int
) -> dict[str, Choice]:
    """Upgrade the tensor that gains most per byte until nothing more fits."""
    while True:
        left = budget - _total(chosen)
        better = [
            ((now.cost - c.cost) / max(c.nbytes - now.nbytes, 1), n, c)
            for n, now in chosen.items()
            for c in found[n]
            if c.cost < now.cost and c.nbytes - now.nbytes <= left
        ]
        if not better:
            return chosen
        _, name, choice = max(better, key=lambda b: b[0])
        chosen = {**chosen, name: choice}


def fixed_bytes(job: Any, light: bool = False, file_bytes: int | None = None) -> int:
    """Return the bytes of a file without the tensors whose type is open; nothing is measured.

    UsageError naming the smallest file where that is larger than ``file_bytes``.
    """
    planned, wanted = dict(job.plan.types), _open(job, light)
    shapes = {name: job.tensors[name].shape for name in wanted}
    size = sum(shard.nbytes for shard in job.writer().plan())
    kinds = {name: _candidates(job, name, light) for name in wanted}
    # The file lists its types in a key, which grows with them.
    names = {kind for of_one in kinds.values() for kind in of_one}
    listed = _aligned(sum(len(f"{kind}:{len(wanted)} ") for kind in names))
    fixed = size + listed - sum(_bytes(shape, planned[n]) for n, shape in shapes.items())
    least = fixed + sum(min(_bytes(s, kind) for kind in kinds[n]) for n, s in shapes.items())
    if file_bytes is not None and least > file_bytes:
        bits = ceil(800 * least / job.n_elements) / 100
        raise UsageError(
            f"a file of {file_bytes} bytes is too small for this model: "
            f"the smallest takes {least} bytes ({bits:.2f} bits a weight)"
        )
    return fixed


def _bytes(shape: tuple[int, ...], type_name: str) -> int:
    from ggq import quants

    return _aligned(prod(shape[:-1]) * quants.get(type_name).row_bytes(shape[-1]))


def overrides(types: dict[str, str]) -> tuple[tuple[str, str], ...]:
    """Return a plan as the mixture's overrides: one exact expression per tensor."""
    return tuple((f"^{re.escape(name)}$", kind) for name, kind in types.items())


def write_plan(path: str | os.PathLike[str], types: dict[str, str]) -> None:
    """Write a plan as JSON, to keep, edit and use again."""
    write_text(path, json.dumps({"tensors": types}, indent=1) + "\n", "plan ")


def read_plan(path: str | os.PathLike[str]) -> dict[str, str]:
    """Return the types of a plan; FormatError where it is no object of names and types."""
    try:
        types = json.loads(Path(path).read_text(encoding="utf-8"))["tensors"]
        if not all(isinstance(t, str) for t in types.values()):
            raise TypeError
    except OSError as error:
        raise UsageError(f"{printable(path)}: cannot read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise FormatError(f"{printable(path)}: is no plan: tensors and their types") from None
    return types
