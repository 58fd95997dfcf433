"""Adapters added to the weights of a checkpoint while these are read: no weight is held whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ggq.converters.checkpoint.folder import Checkpoint
from ggq.converters.checkpoint.peft import Delta, PeftAdapter, plain_name
from ggq.converters.formats.base import TensorLike
from ggq.converters.safetensors import FLOATS
from ggq.errors import ModelError, printable

__all__ = ["merge"]


@dataclass(frozen=True)
class Merged:
    """A weight and what is added to it; sums in float64, rounded to float32 once."""

    base: TensorLike
    delta: Delta

    @property
    def name(self) -> str:
        return self.base.name

    @property
    def dtype(self) -> str:
        """The base's type of floats, F32 where it is quantized: the sum fits no codes."""
        return self.base.dtype if self.base.dtype in FLOATS else "F32"

    @property
    def shape(self) -> tuple[int, ...]:
        return self.base.shape

    def read(self, rows: Any) -> np.ndarray:
        """Return rows, or (rows, columns), as float32."""
        chosen, columns = rows if isinstance(rows, tuple) else (rows, slice(None))
        added = self.delta.rows(chosen)[:, columns]
        return (self.base.read(rows) + added).astype(np.float32)


@dataclass(frozen=True)
class _Instead:
    """A weight that stands in the place of the checkpoint's, under its name."""

    name: str
    given: TensorLike

    @property
    def dtype(self) -> str:
        return self.given.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return self.given.shape

    def read(self, rows: Any) -> np.ndarray:
        """Return rows, or (rows, columns), as float32."""
        return self.given.read(rows)


def merge(checkpoint: Checkpoint, adapters: Sequence[PeftAdapter]) -> None:
    """Put the sums of weights and adapters in the place of the weights; ModelError naming what.

    Each adapter is told in the checkpoint's warnings.
    """
    names = {plain_name(name): name for name in checkpoint.tensors}
    tied = bool(checkpoint.config.get("tie_word_embeddings"))
    for adapter in adapters:
        for name, tensor in adapter.whole.items():
            found = _found(names, name, tensor.shape, checkpoint, adapter)
            checkpoint.tensors[found] = _Instead(found, tensor)
        for name, delta in adapter.deltas.items():
            if tied and delta.form == "embedding":
                what = f"{adapter.where}: {printable(name)} is the base's output matrix, too"
                raise ModelError(f"{what}, to which the adapter does not belong")
            found = _found(names, name, delta.shape, checkpoint, adapter)
            checkpoint.tensors[found] = Merged(checkpoint.tensors[found], delta)
        checkpoint.warnings.append(_told(adapter))


def _told(adapter: PeftAdapter) -> str:
    ranks = sorted({delta.rank for delta in adapter.deltas.values()})
    ranked = str(ranks[0]) if len(ranks) == 1 else f"{ranks[0]} to {ranks[-1]}"
    what = f"{adapter.where}: merged into {len(adapter.deltas)} weights, rank {ranked}"
    return what + (f"; {len(adapter.whole)} weights are the adapter's" if adapter.whole else "")


def _found(
    names: dict[str, str],
    name: str,
    shape: tuple[int, ...],
    checkpoint: Checkpoint,
    adapter: PeftAdapter,
) -> str:
    """Return the checkpoint's name of a weight that an adapter changes; ModelError."""
    found = names.get(plain_name(name))
    of = f", it is of {printable(adapter.base)}" if adapter.base else ""
    if found is None:
        what = f"the base has no tensor {printable(name)}"
        raise ModelError(f"{adapter.where}: {what}: the adapter is another model's{of}")
    has = checkpoint.tensors[found].shape
    if has != shape:
        what = f"{printable(name)} is {shape} in the adapter, {has} in the base"
        raise ModelError(f"{adapter.where}: {what}: it is another model's{of}")
    return found
