"""The CPU engine: weights, plans, cache and executor of one model; no text, no sampling."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from ggq.errors import ModelError, UsageError
from ggq.models.hparams import HParams, check_generates
from ggq.runtime.backends.numba.backend import FEW, NumbaOps, record
from ggq.runtime.backends.numba.executor import Executor
from ggq.runtime.backends.numba.inputs import Inputs, Part
from ggq.runtime.backends.numba.plan import Plan, Recorder, State
from ggq.runtime.cache.kvcache import KVCache, Sequence

__all__ = ["BATCH", "Engine", "Part"]

BATCH = 256  # most tokens of a step: weights are read once for all of them, buffers stay small


class Engine:
    """Evaluates tokens of any number of sequences."""

    embeds = False  # whether steps give hidden states
    _check_unchanged = staticmethod(lambda: None)  # where weights cannot change under us

    def __init__(
        self, architecture: Any, hp: HParams, weights: Any, *, n_ctx: int, n_threads: int, kind: str
    ):
        self.hp, self.n_ctx = hp, n_ctx
        self.batch = BATCH if hp.causal else n_ctx  # an encoder's text is evaluated whole
        self.cache = KVCache(hp.memories, n_ctx, kind)
        self._architecture, self._weights = architecture, weights
        # Pages beyond the new end of a file that was cut would end the process.
        self._check_unchanged = getattr(weights, "check_unchanged", lambda: None)
        self._state = State()
        self._inputs = Inputs(self.batch, self._state, FEW, hp.causal)
        self._plans: dict[int, Plan] = {}
        self.executor = Executor(n_threads)

    def sequence(self) -> Sequence:
        """Return a new, empty sequence."""
        return Sequence(self.cache)

    def plan(self, n_tokens: int) -> Plan:
        """Return the plan for a step of ``n_tokens``, recorded on first use."""
        size = FEW if n_tokens <= FEW else self.batch
        if size not in self._plans:
            recorder = Recorder(size, self._state)
            ops = NumbaOps(self._weights, recorder, self._inputs, self.cache)
            self._plans[size] = record(self._architecture, self.hp, ops)
        return self._plans[size]

    def step(self, parts: list[Part]) -> np.ndarray:
        """Evaluate parts, ``batch`` tokens at most; return float32 logits (n_wanted, n_vocab)."""
        n_tokens = sum(len(part.ids) for part in parts)
        if not 0 < n_tokens <= self.batch:
            raise UsageError(f"a step takes 1 to {self.batch} tokens, not {n_tokens}")
        for part in parts:
            if len(part.ids) and not 0 <= part.ids.min() <= part.ids.max() < self.hp.n_vocab:
                raise UsageError(f"token ids must be in 0..{self.hp.n_vocab - 1}")
            part.sequence.reserve(len(part.ids))
        plan = self.plan(n_tokens)
        self._check_unchanged()
        n_outputs = self._inputs.fill(parts)
        try:
            self.executor.run(plan)
        except BaseException:  # Ctrl-C: states of recurrent layers are half moved
            for part in parts:
                part.sequence.recover()
            raise
        for part in parts:
            part.sequence.advance(len(part.ids))
        return self._rows(plan, n_outputs)

    def evaluate(self, sequence: Sequence, ids: Any, every: bool = False) -> np.ndarray:
        """Append ids in steps of ``batch``; return the last token's logits, or ``every`` one's."""
        try:
            ids = np.asarray(ids, np.int64)
        except OverflowError:
            raise UsageError(f"token ids must be in 0..{self.hp.n_vocab - 1}") from None
        if not self.embeds:
            check_generates(self.hp)
        if not len(ids):
            raise UsageError("no tokens to evaluate")
        if sequence.length + len(ids) > self.n_ctx:
            raise UsageError(
                f"{sequence.length + len(ids)} tokens do not fit in the context of {self.n_ctx}"
            )
        rows = []
        for start in range(0, len(ids), self.batch):
            chunk = ids[start : start + self.batch]
            wanted = np.full(len(chunk), every)
            wanted[-1] |= start + len(chunk) == len(ids)
            rows.append(self.step([Part(sequence, chunk, wanted)]))
        return np.concatenate(rows) if every else rows[-1][-1]

    @cached_property
    def _embedder(self) -> Any:
        from ggq.runtime.engine.embedding import Embedder

        return Embedder(self)

    def embed(self, ids: Any) -> np.ndarray:
        """Return the tokens' pooled last hidden states, normalized: float32 (n_embd,)."""
        return self._embedder.embed(ids)

    def _rows(self, plan: Plan, n: int) -> np.ndarray:
        """Copy the logits out of the plan's buffer."""
        stride = plan.output.stride // 4
        start = plan.output.address - plan.keep[0].ctypes.data
        arena = plan.keep[0][start : start + n * 4 * stride].view(np.float32)
        return arena.reshape(n, stride)[:, : self.hp.n_vocab].copy()

    def close(self) -> None:
        """End the threads."""
        self.executor.close()


def check_finite(logits: np.ndarray) -> None:
    """Raise ModelError where a file's values make the result useless."""
    if not np.isfinite(logits[..., : min(64, logits.shape[-1])]).all():
        raise ModelError("the model gives NaN or infinite logits: its weights are damaged")
