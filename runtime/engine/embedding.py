"""Texts' vectors and scores: hidden states, pooled, and what the file has after them.

Short texts share a step, each in a sequence of its own. It knows token ids, no text.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ggq.errors import ModelError, UsageError, printable
from ggq.models.pooled import POOLINGS, YES_NO
from ggq.runtime.cache.layout import PAGE
from ggq.runtime.engine.backend import Output, Part
from ggq.runtime.engine.engine import Engine

__all__ = ["Embedder", "Ranked", "Tokens", "finished"]

PACKED = 1024  # tokens of a step that several texts share: more gain nothing
_TINY = 1e-12
_erf = np.vectorize(math.erf, otypes=[np.float64])
_ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "identity": lambda x: x,
    "tanh": np.tanh,
    "gelu": lambda x: 0.5 * x * (1.0 + _erf(x / math.sqrt(2.0))),
}


class Tokens(NamedTuple):
    """One text's token ids, and which part of it each belongs to where there are several."""

    ids: Any
    types: Any = None


class Ranked(NamedTuple):
    """A document's number among those given, and how well it answers."""

    number: int
    score: float


def finished(
    vector: np.ndarray, normalize: bool = True, dimensions: int | None = None
) -> np.ndarray:
    """Return the first ``dimensions`` of vectors (..., n), float32, of length 1 if asked."""
    exact = vector[..., :dimensions].astype(np.float64)
    if normalize:
        exact = exact / np.maximum(np.linalg.norm(exact, axis=-1, keepdims=True), _TINY)
    found: np.ndarray = exact.astype(np.float32)
    return found


class Embedder:
    """Gives texts' vectors and scores on one engine; ``weights``: the file's tensors by name.

    ``classifier_act``: the function after the classifier's hidden layer.
    """

    def __init__(self, engine: Engine, weights: Mapping[str, Any], classifier_act: str = "tanh"):
        self.engine, self.hp = engine, engine.hp
        self._weights, self._act = weights, classifier_act
        self._arrays: dict[str, np.ndarray] = {}

    def pooling(self, asked: str | None = None) -> str:
        """Return how hidden states become one vector: as asked, else as the file says.

        UsageError for a name that there is not and a way that the model cannot go.
        """
        if asked is None:
            return "mean" if not self.hp.readout.pooling else POOLINGS[self.hp.readout.pooling]
        if asked not in POOLINGS:
            raise UsageError(f"pooling {printable(asked)}: one of {', '.join(POOLINGS)}")
        if asked == "rank" and not self.hp.readout.labels:
            raise UsageError(f"pooling rank: this {self.hp.arch} file has no classifier")
        if asked == "cls" and self.hp.causal:
            raise UsageError("pooling cls: a decoder's first token sees no other one: last or mean")
        return asked

    @property
    def width(self) -> int:
        """The columns of a text's vector."""
        return self.hp.readout.dense[-1].n_out if self.hp.readout.dense else self.hp.n_embd

    def check_dimensions(self, dimensions: int | None) -> None:
        """Raise UsageError where the model has not that many."""
        if dimensions is not None and not 1 <= dimensions <= self.width:
            raise UsageError(f"dimensions {dimensions}: the model has {self.width}")

    def ranking(self, texts: list[str]) -> list[str]:
        """Return ``texts``; UsageError where the model gives no single score."""
        if not self.hp.readout.labels:
            what = (
                "it embeds texts"
                if self.hp.readout.pooling or not self.hp.causal
                else "it writes texts"
            )
            raise UsageError(f"this {self.hp.arch} file is no reranker: {what}")
        if len(self.hp.readout.labels) > 1 and self.hp.readout.labels != YES_NO:
            names = printable(", ".join(self.hp.readout.labels), 60)
            raise UsageError(f"a classifier of several labels ({names}) gives no single score")
        return texts

    def relevances(self, pairs: Sequence[Tokens]) -> list[float]:
        """Return how well each document answers its query, by a classifier of one label.

        Of one that compares yes and no, the share of yes.
        """
        scores = self.vectors(pairs, "rank")
        if self.hp.readout.labels != YES_NO:
            return [float(s[0]) for s in scores]
        return [1.0 / (1.0 + math.exp(float(s[1]) - float(s[0]))) for s in scores]

    def vectors(self, texts: Sequence[Tokens], pooling: str | None = None) -> list[np.ndarray]:
        """Return each text's vector, float32 (n,); with "none" its tokens' ones, (n_tokens, n).

        With "rank" it is the classifier's scores, (n_labels,). UsageError for a text that does not
        fit, ModelError where the model gives no numbers.
        """
        way = self.pooling(pooling)
        return [self._finished(rows, way) for rows in self._rows(texts, self._places(way))]

    def _places(self, way: str) -> str:
        """Return which tokens' rows are asked for: all, the first or the last."""
        if way == "rank":
            said = self.hp.readout.classifier_pooling
            way = POOLINGS[said] if said else "last" if self.hp.causal else "cls"
        return {"cls": "first", "last": "last"}.get(way, "all")

    def _finished(self, rows: np.ndarray, way: str) -> np.ndarray:
        if not np.isfinite(rows).all():
            raise ModelError("the model gives NaN or infinite values: its weights are damaged")
        exact = rows.astype(np.float64)
        if way == "rank":
            return self._scores(exact.mean(axis=0)).astype(np.float32)
        pooled = exact if way == "none" else exact.mean(axis=0)  # one row, or the mean of all
        for number, layer in enumerate(self.hp.readout.dense, 2):
            pooled = _ACTIVATIONS[layer.activation](self._linear(pooled, f"dense_{number}"))
        return pooled.astype(np.float32)

    def _scores(self, x: np.ndarray) -> np.ndarray:
        """Return what the classifier makes of a pooled state."""
        if "cls.weight" in self._weights:
            x = _ACTIVATIONS[self._act](self._linear(x, "cls"))
            if "cls.norm.weight" in self._weights:
                x = x - x.mean()
                x = x / np.sqrt((x * x).mean() + self.hp.norm_eps) * self._array("cls.norm.weight")
        return self._linear(x, "cls.output")

    def _linear(self, x: np.ndarray, name: str) -> np.ndarray:
        y: np.ndarray = x @ self._array(f"{name}.weight").T
        return y + self._array(f"{name}.bias") if f"{name}.bias" in self._weights else y

    def _array(self, name: str) -> np.ndarray:
        """Return a small tensor as float64, decoded once."""
        if name not in self._arrays:
            self._arrays[name] = self._weights[name].dequantized().astype(np.float64)
        return self._arrays[name]

    def groups(self, texts: Sequence[Tokens]) -> Iterator[list[Tokens]]:
        """Yield texts that share a step, for callers who do something else between steps."""
        start, pages = 0, self.engine.cache.n_pages
        while start < len(texts):
            end = self._packed(texts, start, pages)
            yield list(texts[start:end])
            start = end

    # -- hidden states

    def _rows(self, texts: Sequence[Tokens], places: str) -> Iterator[np.ndarray]:
        """Yield each text's hidden states at its ``places``, float32 (n, n_embd)."""
        checked = [self._checked(text) for text in texts]
        start = 0
        while start < len(checked):
            with self.engine.places.of(len(checked[start].ids)), self.engine.turn:
                pages = self.engine.cache.free_positions // PAGE
                end = self._packed(checked, start, pages)
                rows = list(self._step(checked[start:end], places))
            yield from rows
            start = end

    def _checked(self, text: Tokens) -> Tokens:
        ids = np.asarray(text.ids, np.int64)
        if not len(ids):
            raise UsageError("no tokens to embed")
        if len(ids) > self.engine.n_ctx:
            raise UsageError(f"a text of {len(ids)} tokens: {self.engine.n_ctx} are possible")
        return Tokens(ids, None if text.types is None else np.asarray(text.types, np.int64))

    def _packed(self, texts: Sequence[Tokens], start: int, pages: int) -> int:
        """Return where the texts end that share a step from number ``start`` on: at least one."""
        most = min(PACKED, self.engine.max_tokens)
        tokens = 0
        for end in range(start, len(texts)):
            tokens += len(texts[end].ids)
            pages -= -(-len(texts[end].ids) // PAGE)
            if end > start and (tokens > most or pages < 0):
                return end
        return len(texts)

    def _step(self, texts: Sequence[Tokens], places: str) -> Iterator[np.ndarray]:
        sequences = [self.engine.sequence() for _ in texts]
        try:
            if len(texts) == 1:
                rows = [self._alone(sequences[0], texts[0], places)]
            else:
                parts = [
                    Part(s, t.ids, _wanted(len(t.ids), places), types=t.types)
                    for s, t in zip(sequences, texts, strict=True)
                ]
                found = self.engine.step(parts, Output.HIDDEN)
                ends = np.cumsum([int(part.wanted.sum()) for part in parts])
                rows = np.split(found, ends[:-1])
        finally:
            for sequence in sequences:
                sequence.free()
        yield from rows

    def _alone(self, sequence: Any, text: Tokens, places: str) -> np.ndarray:
        """Return the rows of one text, which may take several steps."""
        rows = self.engine.evaluate(
            sequence, text.ids, every=places != "last", output=Output.HIDDEN, types=text.types
        )
        return rows[:1] if places == "first" else rows.reshape(-1, rows.shape[-1])


def _wanted(n_tokens: int, places: str) -> np.ndarray:
    wanted = np.full(n_tokens, places == "all")
    if places != "all":
        wanted[0 if places == "first" else -1] = True
    return wanted
