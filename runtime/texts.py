"""What a model does with whole texts: vectors, ranks, scores. It knows no generation."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from ggq.arguments import checked
from ggq.models.hparams import HParams
from ggq.once import once
from ggq.runtime.engine.embedding import Embedder, Ranked, Tokens, finished

if TYPE_CHECKING:  # imported where they are used
    from ggq.gguf import GGUFFile
    from ggq.models.base import Architecture
    from ggq.runtime.engine.engine import Engine
    from ggq.runtime.generation.documents import Documents
    from ggq.runtime.tokenizers.base import Tokenizer

__all__ = ["Texts", "strings"]


def strings(value: str | Iterable[str] | None) -> tuple[str, ...]:
    """Return one text, or several, as a tuple."""
    return (value,) if isinstance(value, str) else tuple(value or ())


class Texts:
    """The part of `ggq.runtime.model.Model` for whole texts; the rest is what it works with."""

    gguf: GGUFFile
    hparams: HParams
    _architecture: Architecture
    if TYPE_CHECKING:

        @property
        def engine(self) -> Engine: ...
        @property
        def tokenizer(self) -> Tokenizer: ...

    @once
    def embedder(self) -> Embedder:
        """What gives texts' vectors and scores."""
        from ggq.runtime.engine.weights import Weights

        return Embedder(self.engine, Weights(self.gguf), self._architecture.classifier_act)

    @once
    def documents(self) -> Documents:
        """The ids of texts to embed and to rank, with the file's prompts."""
        from ggq.runtime.generation.documents import Documents

        return Documents(self.tokenizer, self.gguf.metadata, self.hparams.n_token_types)

    @checked
    def embed(
        self,
        texts: str | Iterable[str],
        *,
        pooling: str | None = None,
        normalize: bool = True,
        dimensions: int | None = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
        truncate: bool = False,
    ) -> Any:
        """Return one vector per text, float32 (n_texts, n); a string is one text.

        ``pooling``: none, mean, cls, last or rank instead of the file's; with "none" the result is
        a list of arrays, (n_tokens, n) each, with "rank" a classifier's scores as they are.
        ``dimensions``: only the first ones, for models trained for it (arXiv 2205.13147).
        ``prompt`` goes before each text, or the file's own of ``prompt_name``, such as query.
        ``truncate`` cuts texts that are too long. UsageError for what the model cannot do.
        """
        before, limit = self.documents.prompt(prompt_name, prompt), self.engine.n_ctx
        ids = [self.documents.ids(before + t, limit if truncate else None) for t in strings(texts)]
        way = self.embedder.pooling(pooling)
        self.embedder.check_dimensions(dimensions)
        found = self.embedder.vectors([Tokens(i) for i in ids], way)
        if way != "rank":
            found = [finished(v, normalize, dimensions) for v in found]
        if way == "none":
            return found
        return np.stack(found) if found else np.zeros((0, self.embedder.width), np.float32)

    @checked
    def rerank(
        self,
        query: str,
        documents: Iterable[str],
        *,
        top_n: int | None = None,
        truncate: bool = False,
    ) -> list[Ranked]:
        """Return (number, score) of the documents, the one that answers ``query`` best first.

        The score is the classifier's output as it is or, of models that answer yes or no, the
        share of yes. ``truncate`` cuts long documents. UsageError for a model that does not rank.
        """
        texts = self.embedder.ranking(list(strings(documents)))
        pairs = [self._pair(query, text, truncate) for text in texts]
        scores = self.embedder.relevances(pairs)
        order = sorted(range(len(scores)), key=lambda i: -scores[i])
        return [Ranked(i, scores[i]) for i in order[:top_n]]

    def _pair(self, query: str, document: str, truncate: bool) -> Tokens:
        limit = self.engine.n_ctx if truncate else None
        return Tokens(*self.documents.pair(query, document, limit))

    @checked
    def classify(self, texts: str | Iterable[str], *, truncate: bool = False) -> np.ndarray:
        """Return each text's scores, by ``hparams.readout.labels``: float32 (n_texts, n_labels)."""
        found: np.ndarray = self.embed(texts, pooling="rank", prompt="", truncate=truncate)
        return found
