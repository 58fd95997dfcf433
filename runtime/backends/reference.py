"""The tests' truth: every operation in numpy float64, one sequence, a cache of plain lists.

It knows nothing about speed: weights are decoded whole, on first use, and kept.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ggq import models
from ggq.models.hparams import HParams
from ggq.runtime.backends.base import Ops, Weight

__all__ = ["ReferenceOps", "logits"]

Rows = list[np.ndarray]


class ReferenceOps(Ops):
    """Activations are float64 (n_tokens, width); ``evaluate`` extends the one sequence held."""

    backend = "reference"

    def __init__(self, weights: Mapping[str, Weight]):
        super().__init__(weights)
        self.ids = np.empty(0, np.int64)  # the tokens under evaluation
        self.types: np.ndarray = np.empty(0, np.int64)  # of the parts of a text they belong to
        self.pictures: Any = None  # (numbers of tokens, rows (parts, n, n_embd)) of this step
        self.places: np.ndarray = np.empty(0, np.int64)  # positions as rotations take them
        self.last_only = False
        self._decoded: dict[str, np.ndarray] = {}
        self.reset()

    def reset(self) -> None:
        """Forget the cached sequence."""
        self.past = 0  # tokens already in the cache
        self.spans: list[tuple[int, int]] = []  # first and end of each picture in the sequence
        # layer -> (key rows, value rows), one per token
        self.cache: dict[int, tuple[Rows, Rows]] = defaultdict(lambda: ([], []))

    @property
    def positions(self) -> np.ndarray:
        """The positions of the tokens under evaluation."""
        return self.past + np.arange(len(self.ids))

    def array(self, name: str) -> np.ndarray:
        """Return the tensor ``name`` as float64 in its own shape."""
        if name not in self._decoded:
            self._decoded[name] = self.weight(name).dequantized().astype(np.float64)
        return self._decoded[name]

    def step(
        self,
        forward: Callable[[Ops], np.ndarray],
        ids: Sequence[int],
        types: Sequence[int] | None = None,
        places: np.ndarray | None = None,
    ) -> np.ndarray:
        """Append ``ids`` to the sequence and return what ``forward(self)`` computes for them.

        ``types``: which part of a text each belongs to, all to the first unless given. ``places``:
        positions that rotations turn by, (n,) or (n, 3), where they are not the tokens' own.
        """
        self.ids = np.asarray(ids, np.int64)
        self.places = self.positions if places is None else places
        self.types = np.zeros_like(self.ids) if types is None else np.asarray(types, np.int64)
        rows = forward(self)
        self.past += len(self.ids)
        return rows

    def evaluate(self, hp: HParams, ids: Sequence[int], last_only: bool = False) -> np.ndarray:
        """Append ``ids`` and return the logits after each, float64 (len(ids) or 1, n_vocab)."""
        self.last_only = last_only
        return self.step(lambda ops: models.get(hp.arch).forward(ops, hp), ids)


def logits(weights: Mapping[str, Weight], hp: HParams, ids: Sequence[int]) -> np.ndarray:
    """Return the logits after each token of a fresh sequence, float64 (len(ids), n_vocab)."""
    return ReferenceOps(weights).evaluate(hp, ids)
