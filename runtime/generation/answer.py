"""An answer being made: logits go in, tokens, text, log-probabilities and the reason it ends come.

Whoever evaluates one sequence or many drives one of these for each. It knows no engine, no cache
and no clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ggq.errors import UsageError, printable
from ggq.runtime.sampling import Sampler, SamplingParams
from ggq.runtime.sampling.candidates import Candidates

__all__ = [
    "Answer",
    "AnswerConfig",
    "Logprobs",
    "Piece",
    "StopStrings",
    "TextStream",
    "Tokenizer",
    "token_logprobs",
]


class TextStream(Protocol):
    """Turns tokens into text as they come (ggq.runtime.tokenizers.base.TokenStream)."""

    def push(self, token: int) -> str:
        """Return the text that became certain with ``token``."""

    def flush(self) -> str:
        """Return the text of what was held back."""


class Tokenizer(Protocol):
    """What answers ask of a tokenizer (ggq.runtime.tokenizers.base.Tokenizer)."""

    @property
    def n_vocab(self) -> int:
        """The number of token ids."""

    @property
    def eog_ids(self) -> frozenset[int]:
        """The tokens that end an answer."""

    def encode(self, text: str) -> list[int]:
        """Return the token ids of a text."""

    def token_bytes(self, token: int) -> bytes:
        """Return the bytes that a token stands for."""

    def stream(self) -> TextStream:
        """Return a new stream of text, control tokens left out."""


@dataclass(frozen=True)
class Logprobs:
    """Natural logarithms of probabilities before sampling: the token's, and the likeliest ones."""

    logprob: float
    top: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Piece:
    """Text that became certain with a token; ``finish_reason`` is set on the last piece only.

    ``stop`` is the stop string that ended the answer, None where none did. ``thought``: the text is
    a part of the model's thoughts, where whoever reads its marks says so.

    ``stop``: the model ended its turn or wrote a stop string. ``length``: max_tokens or the
    context is used up. ``cancelled``: whoever evaluates was told to stop.
    """

    text: str
    token_id: int | None = None
    finish_reason: str | None = None
    logprobs: Logprobs | None = None
    stop: str | None = None
    thought: bool = False


@dataclass(frozen=True)
class AnswerConfig:
    """Where an answer ends and what of it is told.

    ``max_tokens`` None or -1: until the context is full. ``stop``: texts that end it, none empty.
    ``logprobs``: how many of the likeliest tokens to report with each token, None for no report.
    ``shown``: control tokens whose text belongs to the answer, for those who parse it.
    """

    max_tokens: int | None = None
    stop: Sequence[str] = ()
    ignore_eos: bool = False  # forbid the ends of a turn: benchmarks
    logprobs: int | None = None
    shown: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        """Hold what users give to what it may be; UsageError names it."""
        if self.max_tokens is not None and self.max_tokens < -1:
            given = printable(self.max_tokens, 40)
            raise UsageError(f"max_tokens: {given} is below 0; -1 goes on to the context's end")
        if not all(self.stop):
            raise UsageError("stop: an empty text would end every answer")


class Answer:
    """One answer: a sampler, the text so far, and ``finish_reason`` once it is known.

    ``tokens`` are those that belong to it: the one that ended its turn does not.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        prompt: Sequence[int],
        params: SamplingParams,
        config: AnswerConfig,
        n_ctx: int,
        constraint: Any = None,
    ) -> None:
        """Take the prompt for the penalties; ``constraint`` is a grammar (sampling.sampler)."""
        self.tokens: list[int] = []
        self.n_sampled = 0
        self.finish_reason: str | None = None
        self._config = config
        self._ends = frozenset() if config.ignore_eos else tokenizer.eog_ids
        if config.ignore_eos:
            forbidden = dict.fromkeys(tokenizer.eog_ids, -np.inf)
            params = params.replace(logit_bias={**params.logit_bias, **forbidden})
        self._sampler = Sampler(params, tokenizer, constraint)
        self._sampler.prime(prompt)
        self._text = _AnswerText(tokenizer, config)
        self._limit = n_ctx - len(prompt) + 1  # the last token need not be evaluated
        if config.max_tokens is not None and config.max_tokens >= 0:
            self._limit = min(self._limit, config.max_tokens)
        self._end_at_limit()

    @property
    def seed(self) -> int:
        """The seed of its random draws."""
        return self._sampler.seed

    @property
    def room(self) -> int:
        """How many tokens it may still take."""
        return self._limit - len(self.tokens)

    def take(self, logits: np.ndarray) -> Piece:
        """Choose the next token from its logits; return what became certain of the text.

        It was the last one where ``finish_reason`` is set now: `rest` is what remains.
        """
        token = self._sampler.sample(logits)
        self._sampler.accept(token)
        self.n_sampled += 1
        if token in self._ends:
            self.finish_reason = "stop"
            return Piece(self._text.push(token) if token in self._config.shown else "")
        self.tokens.append(token)
        text = self._text.push(token)
        if self._text.stopped:
            self.finish_reason = "stop"
        else:
            self._end_at_limit()
        return Piece(text, token, None, token_logprobs(logits, token, self._config.logprobs))

    def cancel(self) -> None:
        """End it: there will be no more logits."""
        self.finish_reason = self.finish_reason or "cancelled"

    def rest(self) -> Piece:
        """Return the text held back, as the last piece."""
        text = self._text.flush()
        if self._text.stopped:
            self.finish_reason = "stop"
        return Piece(text, None, self.finish_reason, stop=self._text.stop)

    def _end_at_limit(self) -> None:
        if len(self.tokens) >= self._limit:
            self.finish_reason = "length"


class StopStrings:
    """Cuts a stream of text before the first stop string; holds back what may become one."""

    def __init__(self, stop: Sequence[str]) -> None:
        """Take the stop strings; empty ones are ignored."""
        self._stop = [s for s in stop if s]
        self._held = ""
        self.hit: str | None = None

    def push(self, text: str) -> str:
        """Return what is certain to be part of the answer; ``hit`` is what has ended it."""
        self._held += text
        found = [(at, s) for s in self._stop if (at := self._held.find(s)) >= 0]
        if found:
            at, self.hit = min(found, key=lambda pair: pair[0])
            out, self._held = self._held[:at], ""
            return out
        keep = max((self._overlap(s) for s in self._stop), default=0)
        cut = len(self._held) - keep
        out, self._held = self._held[:cut], self._held[cut:]
        return out

    def flush(self) -> str:
        """Return what was held back: the stream has ended without a stop string."""
        out, self._held = self._held, ""
        return out

    def _overlap(self, stop: str) -> int:
        longest = min(len(stop) - 1, len(self._held))
        return next((n for n in range(longest, 0, -1) if self._held.endswith(stop[:n])), 0)


class _AnswerText:
    """Tokens to text: whole characters only, and none that may belong to a stop string."""

    def __init__(self, tokenizer: Tokenizer, config: AnswerConfig) -> None:
        self._tokenizer, self._shown = tokenizer, config.shown
        self._text, self._stop = tokenizer.stream(), StopStrings(config.stop)

    @property
    def stopped(self) -> bool:
        """Whether a stop string has ended the answer."""
        return self._stop.hit is not None

    @property
    def stop(self) -> str | None:
        """The stop string that has ended the answer."""
        return self._stop.hit

    def push(self, token: int) -> str:
        """Return the text that became certain with ``token``."""
        if token not in self._shown:
            return self._stop.push(self._text.push(token))
        shown = self._tokenizer.token_bytes(token).decode("utf-8", "replace")
        return self._stop.push(self._text.flush() + shown)

    def flush(self) -> str:
        """Return what was held back; nothing follows."""
        if self.stopped:
            return ""
        rest = self._stop.push(self._text.flush())
        return rest if self.stopped else rest + self._stop.flush()


def token_logprobs(logits: np.ndarray, token: int, count: int | None) -> Logprobs | None:
    """Return the log-probabilities of a token and of the ``count`` likeliest, before sampling.

    In float64 and from the logits: the logarithm of a float32 probability ends at -87.3.
    """
    if count is None:
        return None
    wide = logits.astype(np.float64)
    highest = wide.max()
    total = float(highest + np.log(np.exp(wide - highest).sum()))
    top = Candidates(logits).top(count) if count else Candidates(logits[:0])
    pairs = [(top.token(i), float(x) - total) for i, x in enumerate(top.logits)]
    return Logprobs(float(wide[token]) - total, tuple(pairs))
