"""The engine: steps of sequences through one back end, checked; no text, no sampling."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np

from ggq.errors import UsageError
from ggq.models.hparams import HParams, check_generates
from ggq.runtime.cache.kvcache import Sequence
from ggq.runtime.cache.layout import STEP_TOKENS
from ggq.runtime.cache.pictured import LAST, Pictured, kept
from ggq.runtime.engine.backend import Backend, Output, Part
from ggq.runtime.engine.looking import Looker
from ggq.runtime.engine.places import Places
from ggq.runtime.pictures.gallery import Gallery

__all__ = ["Engine"]

_WARM_UP = 8  # tokens: enough for the plan of prompts


class Engine:
    """Evaluates tokens of any number of sequences of one model. It owns its back end.

    Any thread may ask for a step: ``turn`` lets one at a time. A sequence is one thread's.
    ``places`` are those of the context, for threads that write answers side by side.
    """

    def __init__(
        self,
        hp: HParams,
        backend: Backend,
        mix: tuple[float, ...] = (),
        gallery: Gallery | None = None,
    ):
        """Take what computes; ``mix``: the scales of its adapters in sequences that say none.

        ``gallery``: the pictures that tokens may be of.
        """
        self.mix = mix
        self.looker = None if gallery is None else Looker(hp, gallery)
        self.hp, self.backend = hp, backend
        self.cache = backend.cache
        # an encoder's cache has room for more than one text
        self.n_ctx = self.cache.n_ctx if hp.causal else backend.max_tokens
        self.turn = threading.RLock()
        self._ended: float | None = time.monotonic()  # the last step, None while one runs
        self.places = Places(self.cache.n_pages, self._idle)

    @property
    def max_tokens(self) -> int:
        """The most tokens of a step."""
        return self.backend.max_tokens

    @property
    def usual_tokens(self) -> int:
        """The tokens of a prompt's step; more where a picture is not cut."""
        return min(self.max_tokens, STEP_TOKENS) if self.hp.causal else self.max_tokens

    def sequence(self, mix: tuple[float, ...] | None = None) -> Sequence:
        """Return a new, empty sequence, whose adapters have the scales ``mix``."""
        return Sequence(self.cache, self.mix if mix is None else mix)

    def check_generates(self) -> None:
        """Raise UsageError for an encoder: it has no next token."""
        check_generates(self.hp)

    def _idle(self) -> float:
        """Return the seconds since the last step ended, 0 while one runs."""
        ended = self._ended
        return 0.0 if ended is None else time.monotonic() - ended

    def step(self, parts: list[Part], output: Output = Output.LOGITS) -> np.ndarray:
        """Evaluate parts, ``max_tokens`` tokens at most.

        Returns float32 (wanted tokens, n_vocab) logits, or (wanted tokens, n_embd) hidden states.
        """
        n_tokens = sum(len(part.ids) for part in parts)
        if not 0 < n_tokens <= self.max_tokens:
            raise UsageError(f"a step takes 1 to {self.max_tokens} tokens, not {n_tokens}")
        pictured = [part.sequence.pictured for part in parts]
        try:
            parts = [self._checked(part) for part in parts]
        except BaseException:
            _take_back(parts, pictured)
            raise
        with self.turn:
            self._ended = None
            try:
                return self._step(parts, output)
            except BaseException:
                _take_back(parts, pictured)
                raise
            finally:
                self._ended = time.monotonic()

    def _checked(self, part: Part) -> Part:
        """Return a part whose tokens the model knows, with its pictures; UsageError otherwise."""
        ids = part.ids
        if self.looker is not None and (part.sequence.pictured or (len(ids) and ids.min() < LAST)):
            part = self.looker.prepared(part)
        if len(ids) and not 0 <= part.ids.min() <= part.ids.max() < self.hp.n_vocab:
            raise UsageError(f"token ids must be in 0..{self.hp.n_vocab - 1}")
        return part

    def cut(self, ids: np.ndarray, n: int) -> int:
        """Return how many of a sequence's next ``ids`` a step should take, about ``n``."""
        return min(n, len(ids)) if self.looker is None else self.looker.cut(ids, n, self.max_tokens)

    def _step(self, parts: list[Part], output: Output) -> np.ndarray:
        for part in parts:
            part.sequence.reserve(len(part.ids))
            if part.guesses:
                part.sequence.hold()
        try:
            rows = self.backend.run(parts, output)
        except BaseException:  # Ctrl-C: states of recurrent layers are half moved
            for part in parts:
                part.sequence.recover()
            raise
        for part in parts:
            part.sequence.advance(len(part.ids), answer=part.guesses is not None)
        return rows

    def evaluate(
        self,
        sequence: Sequence,
        ids: Any,
        every: bool = False,
        output: Output = Output.LOGITS,
        types: np.ndarray | None = None,
    ) -> np.ndarray:
        """Append ids in steps of ``max_tokens``; return the last token's row, or ``every`` one's.

        An encoder has hidden states only; UsageError where its logits are asked for. ``types``:
        see `Part`.
        """
        try:
            ids = np.asarray(ids, np.int64)
        except OverflowError:
            raise UsageError(f"token ids must be in 0..{self.hp.n_vocab - 1}") from None
        if output is Output.LOGITS:
            self.check_generates()
        if not len(ids):
            raise UsageError("no tokens to evaluate")
        if sequence.length + len(ids) > self.n_ctx:
            raise UsageError(
                f"{sequence.length + len(ids)} tokens do not fit in the context of {self.n_ctx}"
            )
        rows, start = [], 0
        while start < len(ids):
            chunk = ids[start : start + self.cut(ids[start:], self.usual_tokens)]
            wanted = np.full(len(chunk), every)
            wanted[-1] |= start + len(chunk) == len(ids)
            kinds = None if types is None else types[start : start + len(chunk)]
            rows.append(self.step([Part(sequence, chunk, wanted, types=kinds)], output))
            start += len(chunk)
        return np.concatenate(rows) if every else rows[-1][-1]

    def warm_up(self) -> None:
        """Compile what prompts and answers need, before anyone waits for it."""
        output = Output.LOGITS if self.hp.causal else Output.HIDDEN
        for n_tokens in (min(_WARM_UP, self.n_ctx), 1):
            sequence = self.sequence()
            try:
                self.evaluate(sequence, np.zeros(n_tokens, np.int64), every=True, output=output)
            finally:
                sequence.free()

    def close(self) -> None:
        """Give back what the back end holds: threads, a device's memory."""
        with self.turn:
            self.backend.close()


def _take_back(parts: list[Part], pictured: list[tuple[Pictured, ...]]) -> None:
    """Let sequences forget the pictures of a step that was broken off."""
    for part, before in zip(parts, pictured, strict=True):
        part.sequence.pictured = kept(before, part.sequence.length)
