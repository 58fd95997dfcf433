"""A conversion's tensors as float32 weights that back ends run, and what its file will say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ggq.gguf import spec
from ggq.runtime.engine.weights import Tensor

__all__ = ["SourceWeights", "hparams_of", "metadata_of"]


class SourceWeights(Mapping[str, Tensor]):
    """The tensors of a `Conversion` as float32 weights, read anew at each look-up."""

    def __init__(self, tensors: Mapping[str, Any]):
        self._tensors = tensors

    def __getitem__(self, name: str) -> Tensor:
        tensor = self._tensors[name]
        n_rows = int(np.prod(tensor.shape[:-1], dtype=np.int64))
        values = np.ascontiguousarray(_read(tensor, n_rows), np.float32)
        return Tensor(name, tensor.shape, spec.TYPE_IDS["F32"], values.view(np.uint8))

    def __contains__(self, name: object) -> bool:
        return name in self._tensors

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


def _read(tensor: Any, n_rows: int) -> np.ndarray:
    """Return all rows; a tensor of several parts (experts) is read part by part."""
    if len(tensor.shape) < 3:
        return tensor.read(0, n_rows)
    per_part = tensor.shape[-2]
    parts = [tensor.read(i, i + per_part) for i in range(0, n_rows, per_part)]
    return np.concatenate(parts)


def metadata_of(job: Any) -> dict[str, Any]:
    """Return the keys that the conversion's file will have."""
    copied = dict(job.copy_from.metadata) if job.copy_from is not None else {}
    return copied | {item.key: item.value for item in job.items}


def hparams_of(job: Any) -> Any:
    """Return the architecture and the complete hyper-parameters of a conversion."""
    from ggq import models

    architecture = models.get(job.arch)
    if job.copy_from is None:
        return architecture, job.hparams
    hp = architecture.hparams(job.copy_from)
    architecture.check(job.copy_from, hp)
    return architecture, hp
