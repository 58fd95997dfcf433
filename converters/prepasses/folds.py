"""Scales that move from a weight's input columns into whatever produces that input, exactly.

Which tensor can absorb which is the architecture's table; a pass chooses the scales. Producers are
a norm's gain, the rows of the value projection (tied within key-value groups) and the rows of the
up projection. It knows no quantization.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ggq.converters.prepasses.base import Prepass, Replaced, require_torch
from ggq.errors import ModelError, printable

__all__ = ["Fold", "FoldPass", "apply", "find_folds"]


@dataclass
class Fold:
    """One input shared by ``consumers``, made by ``producer``; ``scale`` (n,) multiplies columns.

    ``repeat``: query heads that read one key-value head of width ``width``; the columns of such
    heads share their scale.
    """

    producer: str
    consumers: list[str]
    repeat: int = 1
    width: int = 0
    scale: np.ndarray | None = None

    def tied(self, values: np.ndarray) -> np.ndarray:
        """Return ``values`` (n,), positive, averaged geometrically over tied columns."""
        if self.repeat == 1:
            return values
        logs = np.log(values).reshape(-1, self.repeat, self.width).mean(1, keepdims=True)
        return np.exp(np.broadcast_to(logs, (len(logs), self.repeat, self.width))).reshape(-1)

    def rows(self) -> np.ndarray:
        """Return the scale per row of the producer."""
        assert self.scale is not None
        if self.repeat == 1:
            return self.scale
        return self.scale.reshape(-1, self.repeat, self.width)[:, 0].reshape(-1)


def find_folds(job: Any, architecture: Any, hp: Any) -> list[Fold]:
    """Return the folds that the table allows and this model has the tensors for.

    Tensors of one input fold together or not at all; ModelError where the producer is missing.
    """
    groups: dict[tuple[str, int | None], list[tuple[str, str | None]]] = {}
    for name, row, layer in architecture.rows(hp):
        if row.input and name in job.tensors and len(row.shape) == 2:
            producer = row.absorbs.format(i=layer) if row.absorbs else None
            groups.setdefault((row.input, layer), []).append((name, producer))
    found = []
    for (_, layer), members in groups.items():
        producers = {p for _, p in members}
        producer = producers.pop()
        if producers or producer is None or layer is None:
            continue
        if producer not in job.tensors:
            raise ModelError(f"{printable(members[0][0])} cannot be folded: no tensor {producer}")
        names = [n for n, _ in members]
        found.append(_fold(job, producer, names, hp, layer))
    return [f for f in found if f is not None]


def _fold(job: Any, producer: str, names: list[str], hp: Any, layer: int) -> Fold | None:
    """Return the fold where columns and rows of the producer are the same or shared by heads."""
    columns, made = job.tensors[names[0]].shape[1], job.tensors[producer].shape[0]
    if columns == made:
        return Fold(producer, names)
    width, repeat = hp.head_dim_v, hp.heads(layer) // max(1, hp.heads_kv(layer))
    if columns != made * repeat or made % width:
        return None
    return Fold(producer, names, repeat, width)


def apply(job: Any, folds: list[Fold]) -> None:
    """Replace the tensors of ``job`` by folded ones; the model's logits stay as they are."""
    values: dict[str, np.ndarray] = {}

    def read(name: str) -> np.ndarray:
        if name not in values:
            tensor = job.tensors[name]
            rows = 1 if len(tensor.shape) == 1 else tensor.shape[0]
            values[name] = np.array(tensor.read(0, rows), np.float32).reshape(tensor.shape)
        return values[name]

    for fold in folds:
        if fold.scale is None:
            continue
        scale = fold.scale.astype(np.float32)
        for name in fold.consumers:
            read(name)[...] *= scale
        rows = fold.rows().astype(np.float32)
        made = read(fold.producer)
        made /= rows if made.ndim == 1 else rows[:, None]
        bias = fold.producer.removesuffix("weight") + "bias"
        if bias in job.tensors:
            read(bias)[...] /= rows
    replaced = {
        n: Replaced(n, job.tensors[n].shape, v.reshape(-1, v.shape[-1])) for n, v in values.items()
    }
    job.tensors = {**job.tensors, **replaced}


@dataclass
class FoldPass(Prepass):
    """Base of the passes that choose folds by what they see of the inputs, one after the other."""

    tokens: int = 8192
    chosen: dict[str, float] = field(default_factory=dict, init=False)

    def search(self, job: Any, fold: Fold, x: Any) -> float:
        """Set ``fold.scale`` for the input ``x`` (a Pair) or leave it None; return the strength."""
        raise NotImplementedError

    def __call__(self, job: Any) -> None:
        torch = require_torch(type(self).__name__.lower())
        from ggq.converters.calibration import SourceWeights, hparams_of
        from ggq.converters.prepasses.streams import StreamOps

        architecture, hp = hparams_of(job)
        folds = find_folds(job, architecture, hp)
        by_name = {name: fold for fold in folds for name in fold.consumers}
        calibration = self.windows(job)

        def choose(name: str, x: Any, *_: Any) -> None:
            fold = by_name.get(name)
            if fold is None or fold.producer + fold.consumers[0] in self.chosen:
                return
            self.chosen[fold.producer + fold.consumers[0]] = self.search(job, fold, x)
            if self.progress:
                self.progress(len(self.chosen), len(folds), name)

        self.chosen.clear()
        with torch.inference_mode():
            ops = StreamOps(
                SourceWeights(job.tensors),
                calibration.windows,
                choose,
                lambda name: None,
                teacher_only=True,
            )
            architecture.forward(ops, hp)
        apply(job, folds)
        self.note(job, type(self).__name__.lower(), calibration.dataset)
