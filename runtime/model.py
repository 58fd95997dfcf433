"""The public model: a GGUF file opened for generation. It joins engine, tokenizer and template."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ggq import models
from ggq.arguments import checked
from ggq.errors import ModelError, UsageError
from ggq.gguf import GGUFFile, open_gguf, validate_model
from ggq.models.hparams import HParams, check_generates
from ggq.models.unknown import unknown_warnings
from ggq.runtime.engine.devices import CPU, Device, resolve
from ggq.runtime.engine.embedding import Embedder, Ranked, Tokens, finished
from ggq.runtime.engine.engine import Engine
from ggq.runtime.sampling import SamplingParams

if TYPE_CHECKING:  # imported where they are used: whoever embeds or evaluates needs none
    from ggq.runtime.generation.documents import Documents
    from ggq.runtime.template.template import ChatTemplate
    from ggq.runtime.tokenizers.base import Tokenizer

__all__ = ["Model", "Session", "load"]

_DEFAULT_CONTEXT = 4096


class Session:
    """One sequence of a model and its place in the cache."""

    def __init__(self, model: Model):
        self._model = model
        self._sequence = model.engine.sequence()
        self.ids: list[int] = []
        self._closed = False

    @checked
    def evaluate(self, ids: Sequence[int]) -> np.ndarray:
        """Append token ids; return the logits after the last one, float32 (n_vocab,).

        Broken off by Ctrl-C, the steps that were complete stay. UsageError on a closed session.
        """
        if self._closed:  # its pages belong to others now
            raise UsageError("this session is closed: begin another with model.session()")
        try:
            return self._model.engine.evaluate(self._sequence, ids)
        finally:
            self.ids.extend(int(i) for i in ids)
            del self.ids[self._sequence.length :]

    @checked
    def truncate(self, n: int) -> None:
        """Keep the first ``n`` tokens, or fewer where recurrent layers cannot go back to there."""
        if n < 0:
            raise UsageError(f"truncate({n}): a number of tokens is at least 0")
        del self.ids[self._sequence.truncate(n) :]

    @property
    def n_ctx(self) -> int:
        """Return the positions that the cache has room for."""
        return self._model.n_ctx

    def close(self) -> None:
        """Give the cache's pages back; the session is of no more use."""
        self._closed = True
        self._sequence.free()
        self.ids.clear()


class Model:
    """A model in memory: mapped weights, tokenizer, cache. Not for several threads at a time."""

    def __init__(
        self,
        gguf: GGUFFile,
        *,
        n_ctx: int | None = None,
        threads: int | None = None,
        cache_type: str | tuple[str, str] = "f16",
        device: Device = CPU,
        vocab_only: bool = False,
    ):
        self.gguf = gguf
        self.warnings = validate_model(gguf, vocab_only=vocab_only)
        self.vocab_only = vocab_only
        self._cache_type, self._threads, self._device = cache_type, threads, device
        self._architecture = models.get(str(gguf.metadata["general.architecture"]))
        if not vocab_only:
            self.hparams: HParams = self._architecture.hparams(gguf)
            self._architecture.check(gguf, self.hparams)
            self.warnings += unknown_warnings(gguf, self._architecture, self.hparams, "not used")
            self.n_ctx = _context(n_ctx, self.hparams)
            self.hparams = self.hparams.for_context(self.n_ctx)

    def __enter__(self) -> Model:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the threads and close the file; the mapping goes with the last reference."""
        if "engine" in self.__dict__:
            self.engine.close()
        self.gguf.close()

    @property
    def device(self) -> str:
        """Return the name of the device: cpu, mps, cuda or cuda:N."""
        return self._device.name

    @cached_property
    def engine(self) -> Engine:
        """The engine of the model's device; compiled and allocated on first use."""
        self._needs_weights()
        backend = self._device.backend(
            self._architecture,
            self.hparams,
            self.gguf,
            n_ctx=self.n_ctx,
            cache_type=self._cache_type,
            threads=self._threads,
        )
        return Engine(self.hparams, backend)

    def _needs_weights(self) -> None:
        if self.vocab_only:
            raise UsageError("the model was opened with vocab_only")

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer built from the file's metadata."""
        from ggq.runtime.tokenizers import tokenizer_from_gguf

        return tokenizer_from_gguf(self.gguf)

    @checked
    def tokenize(
        self, text: str, add_special: bool = True, parse_special: bool = False
    ) -> list[int]:
        """Return the token ids of a text."""
        return self.tokenizer.encode(text, add_special=add_special, parse_special=parse_special)

    @checked
    def detokenize(self, ids: Iterable[int]) -> str:
        """Return the text of token ids."""
        return self.tokenizer.decode(list(ids))

    def session(self) -> Session:
        """Return a new, empty sequence; UsageError for an encoder, which writes no text."""
        self._needs_weights()
        check_generates(self.hparams)
        return Session(self)

    @checked
    def logits(self, ids: Sequence[int]) -> np.ndarray:
        """Return the logits after each token of a fresh sequence, float32 (len(ids), n_vocab)."""
        sequence = self.engine.sequence()
        try:
            return self.engine.evaluate(sequence, ids, every=True)
        finally:
            sequence.free()

    @cached_property
    def embedder(self) -> Embedder:
        """What gives texts' vectors and scores."""
        from ggq.runtime.engine.weights import Weights

        engine = self.engine
        return Embedder(engine, Weights(self.gguf), self._architecture.classifier_act)

    @cached_property
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
        ``dimensions``: only the first ones, for models that are trained for it (arXiv 2205.13147).
        ``prompt``: goes before each text; ``prompt_name``: the file's prompt of that name, such as
        query or document. ``truncate``: texts that are too long are cut, an error otherwise.
        UsageError for what the model cannot do.
        """
        before, limit = self.documents.prompt(prompt_name, prompt), self.engine.n_ctx
        ids = [self.documents.ids(before + t, limit if truncate else None) for t in _strings(texts)]
        way = self.embedder.pooling(pooling)
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

        The score is the classifier's output as it is or, of a model that answers with yes or no,
        the share of yes. ``truncate``: documents that are too long are cut, an error otherwise.
        UsageError for a model that does not rank.
        """
        texts = self.embedder.ranking(list(_strings(documents)))
        pairs = [self._pair(query, text, truncate) for text in texts]
        scores = self.embedder.relevances(pairs)
        order = sorted(range(len(scores)), key=lambda i: -scores[i])
        return [Ranked(i, scores[i]) for i in order[:top_n]]

    def _pair(self, query: str, document: str, truncate: bool) -> Tokens:
        limit = self.engine.n_ctx if truncate else None
        return Tokens(*self.documents.pair(query, document, limit))

    @checked
    def classify(self, texts: str | Iterable[str], *, truncate: bool = False) -> np.ndarray:
        """Return a classifier's scores of each text, float32 (n_texts, n_labels), as they are.

        The labels' names are ``model.hparams.labels``. UsageError for a model without them.
        """
        found: np.ndarray = self.embed(texts, pooling="rank", prompt="", truncate=truncate)
        return found

    @checked
    def generate(
        self,
        prompt: str | Sequence[int],
        *,
        max_tokens: int | None = 128,
        stop: str | Sequence[str] | None = (),
        **sampling: Any,
    ) -> Iterator[str]:
        """Yield the continuation of a prompt in pieces of text."""
        from ggq.runtime.generation.generation import generate

        ids = self.tokenize(prompt) if isinstance(prompt, str) else list(prompt)
        session = self.session()
        try:
            params = self.sampling(sampling)
            for piece in generate(
                session, self.tokenizer, ids, params, max_tokens=max_tokens, stop=_strings(stop)
            ):
                if piece.text:
                    yield piece.text
        finally:
            session.close()

    @checked
    def chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        max_tokens: int | None = 512,
        stop: str | Sequence[str] | None = (),
        tools: Sequence[Mapping[str, Any]] | None = None,
        **sampling: Any,
    ) -> Iterator[str]:
        """Yield the assistant's answer to a conversation in pieces of text."""
        ids = self.chat_ids(messages, tools=tools)
        yield from self.generate(ids, max_tokens=max_tokens, stop=stop, **sampling)

    @checked
    def chat_ids(self, messages: Sequence[Mapping[str, Any]], **template: Any) -> list[int]:
        """Return the token ids of a conversation under the model's own template."""
        from ggq.runtime.generation.conversation import encode_segments

        return encode_segments(self.tokenizer, self.template.render(list(messages), **template))

    @cached_property
    def template(self) -> ChatTemplate:
        """The chat template."""
        from ggq.runtime.template.template import ChatTemplate

        return ChatTemplate.from_gguf(self.gguf)

    @checked
    def sampling(self, flags: Mapping[str, Any]) -> SamplingParams:
        """Return sampling parameters: ``flags``, else the file's, else the defaults."""
        return SamplingParams.resolve(dict(flags), self.gguf.metadata)


def _strings(value: str | Iterable[str] | None) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value or ())


def _context(asked: int | None, hp: HParams) -> int:
    """Return the context length: what was asked for, else the trained one up to 4096."""
    if asked is None or asked == 0:
        return min(hp.n_ctx_train, _DEFAULT_CONTEXT) if asked is None else hp.n_ctx_train
    if asked < 1:
        raise UsageError(f"a context of {asked} tokens is not possible")
    return asked if hp.causal else min(asked, hp.n_ctx_train)  # an encoder knows no more positions


@checked
def load(
    path: str | os.PathLike[str] | GGUFFile,
    *,
    n_ctx: int | None = None,
    threads: int | None = None,
    device: str = "cpu",
    device_weights: str = "auto",
    cache_type: str | tuple[str, str] = "f16",
    vocab_only: bool = False,
) -> Model:
    """Open a GGUF file for generation; the weights are mapped, nothing is copied.

    An open file may be given, such as ``open_gguf(path, use_mmap=False)``, which is in memory.

    ``n_ctx``: positions of the cache (default: the trained length up to 4096; 0: all of it).
    ``cache_type``: f16, f32 or q8_0, or a pair: of keys and of values. ``device``: cpu, mps, cuda,
    or auto: a Mac's GPU where torch is installed, else cpu. ``device_weights``: packed, f16, or
    auto: f16 where there is memory for it.
    Raises GGQError where the file or an option is at fault.
    """
    place = resolve(device, device_weights)
    if threads is not None and not 1 <= threads <= 1024:
        raise UsageError(f"threads must be in 1..1024, not {threads}")
    gguf = path if isinstance(path, GGUFFile) else open_gguf(path)
    try:
        return Model(
            gguf,
            n_ctx=n_ctx,
            threads=threads,
            cache_type=cache_type,
            device=place,
            vocab_only=vocab_only,
        )
    except BaseException as error:
        if gguf is not path:
            gguf.close()
        if isinstance(error, KeyError):  # an architecture asks for what validation let pass
            raise ModelError(f"the file has no {error.args[0]}") from None
        raise
