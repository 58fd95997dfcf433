"""Requests for answers and the state of each answer while it is written, for the scheduler.

A request has one or more choices; a task is one choice: its sequence, sampler and text held back.
It knows neither engine nor HTTP.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ggq.runtime.generation.generation import AnswerText, Logprobs, Piece, check_prompt
from ggq.runtime.sampling import Sampler, SamplingParams
from ggq.runtime.sampling.candidates import Candidates

__all__ = ["Event", "Request", "Task", "Ticket", "token_logprobs"]


@dataclass(frozen=True)
class Request:
    """What is asked for: a prompt and how to go on from it.

    ``constraint`` makes a grammar (sampling.sampler.Constraint) for one choice. ``shown``: control
    tokens whose text belongs to the answer, for those who parse it. ``client``: the queue is fair
    between clients.
    """

    ids: Sequence[int]
    params: SamplingParams = field(default_factory=SamplingParams)
    max_tokens: int | None = None
    stop: Sequence[str] = ()
    n: int = 1
    logprobs: int | None = None
    ignore_eos: bool = False
    constraint: Callable[[], Any] | None = None
    shown: frozenset[int] = frozenset()
    client: str = ""

    def check(self, n_vocab: int, n_ctx: int) -> None:
        """Raise UsageError if it cannot be answered, ContextError if the prompt is too long."""
        check_prompt(self.ids, self.params, n_vocab, n_ctx)


@dataclass(frozen=True)
class Event:
    """News of one choice: a piece of its answer, or the error that ended it."""

    choice: int
    piece: Piece
    error: Exception | None = None


class Ticket:
    """A request in the scheduler's hands: to follow it, count its tokens and cancel it."""

    def __init__(self, request: Request, listener: Callable[[Event], None]):
        self.request, self.listener = request, listener
        self.cancelled = False
        self.prompt_tokens = len(request.ids)
        self.cached_tokens = 0  # of the prompt: found in the cache when the first choice began
        self.generated_tokens = 0
        self.submitted = time.perf_counter()
        self.started = self.first_token = self.finished = 0.0  # perf_counter, 0.0 is not yet
        self.unfinished = request.n

    def cancel(self) -> None:
        """Give up: the work stops before the next token."""
        self.cancelled = True

    @property
    def prompt_seconds(self) -> float:
        """Time from the start of the evaluation to the first token."""
        return max(self.first_token - self.started, 0.0)

    @property
    def generation_seconds(self) -> float:
        """Time since the first token, until the end where it has come."""
        if not self.first_token:
            return 0.0
        return (self.finished or time.perf_counter()) - self.first_token


class Task:
    """One choice of a request while it is evaluated; ``sequence`` is None until it starts."""

    def __init__(self, ticket: Ticket, choice: int, prompt: np.ndarray):
        self.ticket, self.choice, self.prompt = ticket, choice, prompt
        self.generated: list[int] = []
        self.sequence: Any = None
        self._sampler: Sampler | None = None
        self._answer: _ShownText | None = None

    @property
    def request(self) -> Request:
        return self.ticket.request

    @property
    def length(self) -> int:
        """Tokens evaluated so far."""
        return 0 if self.sequence is None else self.sequence.length

    @property
    def prefilling(self) -> bool:
        return self.length < len(self.prompt)

    def evaluated_ids(self) -> np.ndarray:
        """Return the ids that the sequence holds."""
        ids = np.concatenate([self.prompt, np.array(self.generated, np.int64)])
        return ids[: self.length]

    def next_ids(self, limit: int) -> np.ndarray:
        """Return the ids to evaluate next: up to ``limit`` of the prompt, or the last token."""
        if self.prefilling:
            return self.prompt[self.length : self.length + limit]
        return np.array(self.generated[-1:], np.int64)

    def begin(self, tokenizer: Any) -> None:
        """Make sampler and text; raises UsageError for a grammar that cannot be used."""
        params, request = self.request.params, self.request
        if request.ignore_eos:
            ends = dict.fromkeys(tokenizer.eog_ids, -np.inf)
            params = params.replace(logit_bias={**params.logit_bias, **ends})
        if request.n > 1 and params.seed is not None:  # choices differ, and stay reproducible
            params = params.replace(seed=(params.seed + self.choice) % 2**64)
        constraint = request.constraint() if request.constraint else None
        self._sampler = Sampler(params, tokenizer, constraint)
        self._sampler.prime(self.prompt.tolist())
        self._ends = frozenset() if request.ignore_eos else tokenizer.eog_ids
        self._answer = _ShownText(tokenizer, request)

    def take(self, logits: np.ndarray, n_ctx: int) -> Piece:
        """Choose the next token from its logits; return what became certain of the text."""
        assert self._sampler is not None
        assert self._answer is not None
        token = self._sampler.sample(logits)
        self._sampler.accept(token)
        if token in self._ends:
            text = self._answer.push(token).text if token in self.request.shown else ""
            return Piece(text + self._answer.finish("stop").text, None, "stop")
        self.generated.append(token)
        piece = self._answer.push(token, token_logprobs(logits, token, self.request.logprobs))
        limit = self.request.max_tokens
        full = len(self.prompt) + len(self.generated) > n_ctx
        if full or (limit is not None and 0 <= limit <= len(self.generated)):
            text = piece.text + self._answer.finish("length").text
            piece = replace(piece, text=text, finish_reason="length")
        return replace(piece, finish_reason="stop") if self._answer.stopped else piece


class _ShownText(AnswerText):
    """An answer's text, with the control tokens that its reader wants to see."""

    def __init__(self, tokenizer: Any, request: Request) -> None:
        super().__init__(tokenizer, request.stop)
        self._tokenizer, self._shown = tokenizer, request.shown

    def push(self, token: int, logprobs: Logprobs | None = None) -> Piece:
        if token not in self._shown:
            return super().push(token, logprobs)
        text = self._text.flush() + self._tokenizer.token_bytes(token).decode("utf-8", "replace")
        return Piece(self._stop.push(text), token, None, logprobs)


def token_logprobs(logits: np.ndarray, token: int, count: int | None) -> Logprobs | None:
    """Return the log-probabilities of a token and of the ``count`` likeliest, before sampling."""
    if count is None:
        return None
    wide = logits.astype(np.float64)
    highest = wide.max()
    total = highest + np.log(np.exp(wide - highest).sum())
    top = Candidates(logits).top(count) if count else None
    pairs = zip(top.ids.tolist(), top.logits.tolist(), strict=True) if top else ()
    return Logprobs(float(wide[token] - total), tuple((i, x - float(total)) for i, x in pairs))
