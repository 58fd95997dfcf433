"""A model's heads that predict further tokens, as an engine of their own beside the model's.

While the model evaluates, the hidden states of the latest tokens of each sequence are noted; the
head reads them and the tokens behind, in a cache of its own.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast
from weakref import WeakKeyDictionary

import numpy as np

from ggq.gguf import GGUFFile
from ggq.models.base import Architecture
from ggq.models.heads import BESIDE, STATES, last_norm
from ggq.models.hparams import HParams
from ggq.models.layers.base import Layer
from ggq.models.layers.base import Part as LayerPart
from ggq.runtime.cache.kvcache import Sequence
from ggq.runtime.engine.backend import Glimpse, Part
from ggq.runtime.engine.cpu.backend import CPUBackend
from ggq.runtime.engine.engine import Engine
from ggq.runtime.engine.headless import Tap
from ggq.runtime.engine.weights import Tensor, Weights

__all__ = ["Heads"]

_KEPT = 256  # latest tokens of a sequence whose states are kept ...
_SPARE = 256  # ... and so many more before the oldest go
_ALIKE = 32  # tokens that tell a sequence
_TRAILS = 64  # sequences of which states are kept


class _Trail:
    """The latest tokens of a sequence, the first at position ``start``, and their states."""

    def __init__(self, width: int) -> None:
        self.start = self.n = 0
        self.ids = np.zeros(_KEPT + _SPARE, np.int64)
        self.rows = np.zeros((_KEPT + _SPARE, width), np.float32)

    def note(self, at: int, ids: np.ndarray, rows: np.ndarray) -> None:
        """Take at most `_KEPT` tokens evaluated at position ``at``; what stood there was wrong."""
        if not self.start <= at <= self.start + self.n:
            self.start, self.n = at, 0
        self.n = at - self.start
        if self.n + len(ids) > len(self.ids):
            gone = self.n + len(ids) - _KEPT
            for kept in (self.ids, self.rows):
                kept[: self.n - gone] = kept[gone : self.n].copy()
            self.start, self.n = self.start + gone, self.n - gone
        here = slice(self.n, self.n + len(ids))
        self.ids[here], self.rows[here] = ids, rows
        self.n = here.stop

    def tells(self, ids: list[int]) -> bool:
        """Return whether these are the states of a text whose last token has none yet."""
        at = len(ids) - 1 - self.start  # of the token without
        if not 0 < at <= self.n:
            return False
        n = min(at, _ALIKE)
        return bool(self.ids[at - n : at].tolist() == ids[-1 - n : -1])


class _WithEmbedding(Weights):
    """A file's tensors, the embedding by a second name, too."""

    def __getitem__(self, name: str) -> Tensor:
        return super().__getitem__(STATES if name == BESIDE else name)


class _Graph:
    """What the first head computes, as an architecture's forward pass."""

    def __init__(self, architecture: Architecture) -> None:
        self._architecture = architecture

    def forward(self, ops: Any, hp: HParams) -> Any:
        """Return the head's logits."""
        return self._architecture.predict(ops, hp)


class Heads:
    """The first head of a model. It is for whoever has the model engine's turn."""

    def __init__(self, engine: Engine, architecture: Architecture, gguf: GGUFFile) -> None:
        """Listen to the engine, before its first step, and lay the head's own beside it."""
        hp, trunk = engine.hp, cast(CPUBackend, engine.backend)
        none = (Layer(LayerPart()),) * hp.n_layer  # a head's number is that behind the layers
        alone = replace(hp, layers=(*none, hp.heads[0]), heads=(), pictures=True, deepstack=0)
        alone = alone.for_context(engine.n_ctx)
        backend = trunk.beside(_Graph(architecture), alone, _WithEmbedding(gguf))
        self._engine, self._turn = Engine(alone, backend), engine.turn
        self._trails: WeakKeyDictionary[Sequence, _Trail] = WeakKeyDictionary()
        self._after = np.zeros((0, hp.n_embd), np.float32)
        normed, head = architecture.heads_normed, hp.heads[0]
        trunk.tap(Tap(self._note, (lambda ops: "output_norm") if normed else None))
        backend.tap(Tap(self._note_own, (lambda ops: last_norm(ops, head)) if normed else None))

    def sequence(self) -> Sequence:
        """Return a new sequence of the head."""
        return self._engine.sequence()

    def states(self, ids: list[int]) -> tuple[int, np.ndarray] | None:
        """Return the known states of the latest tokens of a text but its last token.

        They are (position of the first, float32 (n, n_embd)); None where none are known.
        """
        with self._turn:
            trail = next((t for t in self._trails.values() if t.tells(ids)), None)
            if trail is None:
                return None
            return trail.start, trail.rows[: len(ids) - 1 - trail.start].copy()

    def predict(
        self, sequence: Sequence, ids: list[int], states: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Append tokens, each with the state of the token before, float32 (n, n_embd).

        Returns the logits of what follows the last one, float32 (n_vocab,), and the state that
        stands for that token's, (1, n_embd).
        """
        wanted = np.zeros(len(ids), bool)
        wanted[-1] = True
        glimpse = Glimpse(0, states[None])
        part = Part(sequence, np.array(ids, np.int64), wanted, pictures=(glimpse,))
        with self._turn:  # the threads are the model's
            logits = self._engine.step([part])
            return logits[0], self._after[-1:]

    def _note(self, parts: list[Part], rows: np.ndarray) -> None:
        """Keep the states of a step of the model."""
        first = 0
        for part in parts:
            n, at = len(part.ids), part.sequence.length
            skipped = max(n - _KEPT, 0)
            trail = self._trails.pop(part.sequence, None) or _Trail(rows.shape[1])
            self._trails[part.sequence] = trail  # the latest is the last
            trail.note(at + skipped, part.ids[skipped:], rows[first + skipped : first + n])
            first += n
        while len(self._trails) > _TRAILS:
            del self._trails[next(iter(self._trails))]

    def _note_own(self, parts: list[Part], rows: np.ndarray) -> None:
        self._after = rows
