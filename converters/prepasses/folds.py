"""Scales that move from a weight's input columns into whatever produces that input, exactly.

Which tensor can absorb which is the architecture's table; a pass chooses the scales. Producers are
a norm's gain, the rows of the value projection (tied within key-value groups) and the rows of the
up projection. It knows no quantization.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import Any, ClassVar

import numpy as np

from ggq.converters.calibration.weights import SourceWeights, hparams_of
from ggq.converters.conversion import Conversion
from ggq.converters.imatrix import Imatrix
from ggq.converters.prepasses.base import Prepass, Replaced, has_blocks
from ggq.converters.prepasses.cost import Cost, Sizes
from ggq.errors import ModelError, printable
from ggq.models.layers.attention import Attention

__all__ = ["Fold", "FoldPass", "apply", "find_folds", "whole"]

TRIALS = 12  # encodings of a matrix while a scale is looked for
CHECKED = 64  # tokens whose logits must stay as they are
SAME = 1e-3  # of the largest logit: float32 through all layers; a wrong fold is off by far more


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


def find_folds(job: Conversion, architecture: Any, hp: Any) -> list[Fold]:
    """Return the folds that the table allows and this model has the tensors for.

    Tensors of one input fold together or not at all; a producer that is missing is named.
    """
    groups: dict[tuple[str, int | None], list[tuple[str, str | None]]] = {}
    for name, row, layer in architecture.rows(hp):
        if row.input and name in job.tensors and len(row.shape) > 1:
            producer = row.absorbs.format(i=layer) if row.absorbs else None
            groups.setdefault((row.input, layer), []).append((name, producer))
    found = []
    for (_, layer), members in groups.items():
        producers = {p for _, p in members}
        producer = producers.pop()
        if producers or producer is None or layer is None or layer >= hp.n_layer:
            continue  # heads are not evaluated: nothing tells their scales
        names = [n for n, _ in members]
        if producer not in job.tensors:
            what = f"{printable(names[0])} is not folded: no tensor {printable(producer)}"
            job.warnings.append(what)
            continue
        found.append(_fold(job, producer, names, hp, layer))
    return [f for f in found if f is not None]


def _fold(job: Conversion, producer: str, names: list[str], hp: Any, layer: int) -> Fold | None:
    """Return the fold where columns and rows of the producer are the same or shared by heads."""
    columns, shape = job.tensors[names[0]].shape[-1], job.tensors[producer].shape
    made = shape[0] if len(shape) < 3 else 0  # rows of experts are no one's columns
    if columns == made:
        return Fold(producer, names)
    heads = hp.layers[layer].find(Attention)
    if heads is None:
        return None
    width, repeat = heads.head_dim_v, heads.n_head // heads.n_head_kv
    if not made or columns != made * repeat or made % width:
        return None
    return Fold(producer, names, repeat, width)


def whole(tensor: Any) -> np.ndarray:
    """Return all rows of a tensor, (rows, width); experts one after the other."""
    if len(tensor.shape) < 3:
        return tensor.read(0, 1 if len(tensor.shape) == 1 else tensor.shape[0])
    step, rows = tensor.shape[-2], prod(tensor.shape[:-1])
    return np.concatenate([tensor.read(a, a + step) for a in range(0, rows, step)])


def apply(job: Conversion, folds: list[Fold]) -> None:
    """Replace the tensors of ``job`` by folded ones; the model's logits stay as they are."""
    job.tensors = {**job.tensors, **_folded(job.tensors, folds)}


def _apply_to_original(job: Conversion, before: dict[str, Any], folds: list[Fold]) -> None:
    """Fold what the file is compared with, too: the same model in the shape that is written."""
    names = {n for fold in folds if fold.scale is not None for n in _touched(job.tensors, fold)}
    same = {n for n in names if before[n] is job.original[n]}
    apart = {} if same == names else _folded(job.original, folds)
    job.original = {**job.original, **apart, **{n: job.tensors[n] for n in same}}


def _touched(tensors: Any, fold: Fold) -> list[str]:
    bias = fold.producer.removesuffix("weight") + "bias"
    return [*fold.consumers, fold.producer, *([bias] if bias in tensors else [])]


def _folded(tensors: Any, folds: list[Fold]) -> dict[str, Replaced]:
    """Return those of ``tensors`` that folds change, changed."""
    values: dict[str, np.ndarray] = {}

    def read(name: str) -> np.ndarray:
        if name not in values:
            tensor = tensors[name]
            values[name] = np.array(whole(tensor), np.float32).reshape(tensor.shape)
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
        for bias in _touched(tensors, fold)[len(fold.consumers) + 1 :]:
            read(bias)[...] /= rows
    return {n: Replaced(n, tensors[n].shape, v.reshape(-1, v.shape[-1])) for n, v in values.items()}


def _apply_checked(job: Conversion, hp: Any, folds: list[Fold], ids: np.ndarray) -> None:
    """Apply the folds that leave the logits of ``ids`` as they are; name the others.

    A table may know less than the graph: a value that other layers read, too.
    """
    before, wanted = job.tensors, _logits(job, hp, ids)

    def holds(some: list[Fold]) -> bool:
        job.tensors = before
        apply(job, some)
        return bool(np.abs(_logits(job, hp, ids) - wanted).max() <= SAME * np.abs(wanted).max())

    if holds(folds):
        return
    for fold in folds:
        if fold.scale is not None and not holds([fold]):
            fold.scale = None
            names = f"{printable(fold.consumers[0])} into {printable(fold.producer)}"
            job.warnings.append(f"folding {names} would change the model: left out")
    if not holds(folds):
        job.tensors = before
        raise ModelError("the folds that were chosen would change what the model computes")


def _logits(job: Conversion, hp: Any, ids: np.ndarray) -> np.ndarray:
    from ggq.runtime.backends.torch.backend import logits

    return logits(SourceWeights(job.tensors), hp, ids)


@dataclass
class FoldPass(Prepass):
    """Base of the passes that choose folds by what they see of the inputs, one after the other."""

    NEEDS: ClassVar[tuple[str, ...]] = ("torch",)

    tokens: int = 8192
    chosen: dict[str, float] = field(default_factory=dict, init=False)

    def matters(self, job: Conversion) -> bool:
        """Return whether there are blocks to choose."""
        return has_blocks(job)

    def cost(self, sizes: Sizes) -> Cost:
        """One forward of the teacher, second moments, and the encodings of the scales tried."""
        work = sizes.forward(sizes.blocks) + sizes.gram
        return Cost(work, 16.0 * sizes.tokens * sizes.widest, encodings=TRIALS)

    def weigh(self, job: Conversion, fold: Fold, importance: np.ndarray) -> None:
        """Let the block search weigh the folded columns by ``importance`` (n,)."""
        found = {}
        for name in fold.consumers:
            n_parts = prod(job.tensors[name].shape[:-2])
            found[name] = np.tile(importance.astype(np.float32), n_parts)
        given = job.imatrix.values if job.imatrix else {}
        job.imatrix = Imatrix({**given, **found}, dataset=str(self.calibration or ""))

    def search(self, job: Conversion, fold: Fold, x: Any) -> float:
        """Set ``fold.scale`` for the input ``x`` (a Pair) or leave it None; return the strength."""
        raise NotImplementedError

    def __call__(self, job: Conversion) -> None:
        import torch

        from ggq.converters.prepasses.solving.streams import StreamOps

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
            ops.run(architecture, hp)
        before = job.tensors
        _apply_checked(job, hp, folds, calibration.windows[:1, :CHECKED])
        _apply_to_original(job, before, folds)
        self.note(job, calibration.dataset)
