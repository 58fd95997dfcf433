"""Requests for answers and the state of each answer while it is written, for the scheduler.

A request has one or more choices; a task is one choice: its sequence and its answer. It knows
neither engine nor HTTP.
"""

from __future__ import annotations

import time
from collections import abc
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ggq.runtime.cache.kvcache import Sequence
from ggq.runtime.engine.backend import Part
from ggq.runtime.generation.answer import Answer, AnswerConfig, Piece, Tokenizer
from ggq.runtime.generation.drafting.speculation import Speculation, Writer
from ggq.runtime.generation.generation import check_prompt
from ggq.runtime.sampling import SamplingParams

__all__ = ["Event", "Request", "Task", "Ticket"]


@dataclass(frozen=True)
class Request:
    """What is asked for: a prompt and how to go on from it.

    ``constraint`` makes a grammar (sampling.sampler.Constraint) for one choice. ``shown``: control
    tokens whose text belongs to the answer, for those who parse it. ``client``: the queue is fair
    between clients. ``reuse``: go on from an earlier prompt that begins alike. ``mix``: the scales
    of the adapters, None for the engine's.
    """

    ids: abc.Sequence[int]
    params: SamplingParams = field(default_factory=SamplingParams)
    max_tokens: int | None = None
    stop: abc.Sequence[str] = ()
    n: int = 1
    logprobs: int | None = None
    ignore_eos: bool = False
    constraint: Callable[[], Any] | None = None
    shown: frozenset[int] = frozenset()
    client: str = ""
    reuse: bool = True
    mix: tuple[float, ...] | None = None

    @property
    def config(self) -> AnswerConfig:
        """Where an answer ends and what of it is told."""
        return AnswerConfig(self.max_tokens, self.stop, self.ignore_eos, self.logprobs, self.shown)

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
        self.pictures: list[Any] = []  # of the prompt, held until it has been answered
        self.prompt_tokens = len(request.ids)
        self.cached_tokens = 0  # of the prompt: found in the cache when the first choice began
        self.generated_tokens = 0
        self.drafted_tokens = self.accepted_tokens = 0  # guesses tried; those that were right
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
        self.sequence: Sequence | None = None
        self.writer: Writer | None = None  # its guesses
        self._answer: Answer | None = None
        self._ids: list[int] = []  # the prompt and the answer so far, where something guesses

    @property
    def request(self) -> Request:
        """The request that it is a choice of."""
        return self.ticket.request

    @property
    def length(self) -> int:
        """Tokens evaluated so far."""
        return 0 if self.sequence is None else self.sequence.length

    @property
    def prefilling(self) -> bool:
        """Whether a part of the prompt is yet to be evaluated."""
        return self.length < len(self.prompt)

    @property
    def n_pending(self) -> int:
        """Of the answer's tokens: how many are yet to be evaluated."""
        assert self._answer is not None
        return len(self.prompt) + len(self._answer.tokens) - self.length

    @property
    def n_sampled(self) -> int:
        """Tokens chosen so far, the one that ended the answer included."""
        return 0 if self._answer is None else self._answer.n_sampled

    def evaluated_ids(self) -> np.ndarray:
        """Return the ids that the sequence holds."""
        generated = [] if self._answer is None else self._answer.tokens
        return np.concatenate([self.prompt, np.array(generated, np.int64)])[: self.length]

    def next_part(self, limit: int) -> Part:
        """Return what to evaluate next: up to ``limit`` tokens of the prompt, or the last token.

        The logits of the last token alone are wanted. With the last one go its writer's guesses,
        and before it what is evaluated again since guesses were wrong.
        """
        assert self.sequence is not None
        assert self._answer is not None
        if self.prefilling:
            ids = self.prompt[self.length : self.length + limit]
            wanted = np.zeros(len(ids), bool)
            wanted[-1] = self.length + len(ids) >= len(self.prompt)
            return Part(self.sequence, ids, wanted)
        new = self._answer.tokens[self.length - len(self.prompt) :]
        guesses = [] if self.writer is None else list(self.writer.draft.tokens)
        wanted = np.arange(len(new) + len(guesses)) >= len(new) - 1
        return Part(self.sequence, np.array(new + guesses, np.int64), wanted, len(guesses))

    @property
    def outlook(self) -> tuple[list[int], int]:
        """The prompt and the answer so far, and how many guesses there is room for.

        None behind tokens that are evaluated again: what went wrong twice would be so once more.
        """
        assert self._answer is not None
        again = self.n_pending > 1
        return self._ids, 0 if again else self._answer.room - 1

    def begin(
        self, tokenizer: Tokenizer, n_ctx: int, speculation: Speculation | None = None
    ) -> None:
        """Make its answer; raises UsageError for a grammar that cannot be used."""
        request, params = self.request, self.request.params
        if request.n > 1 and params.seed is not None:  # choices differ, and stay reproducible
            params = params.replace(seed=(params.seed + self.choice) % 2**64)
        constraint = request.constraint() if request.constraint else None
        prompt = self.prompt.tolist()
        self._answer = Answer(tokenizer, prompt, params, request.config, n_ctx, constraint)
        if speculation is not None:
            self._ids = [max(token, 0) for token in prompt]  # what guesses knows no pictures
            self.writer = speculation.start()

    def take(self, logits: np.ndarray) -> Iterator[Piece]:
        """Choose the next tokens from their rows; yield what became certain of the text.

        A row behind a wrong guess is none of this text's. Nothing comes after a finish reason.
        """
        answer = self._answer
        assert answer is not None
        for row in logits:
            piece = Piece("") if answer.finish_reason else answer.take(row)
            agreed = False
            if self.writer is not None and piece.token_id is not None:
                self._ids.append(piece.token_id)
                agreed = self.writer.accept(piece.token_id)
            if answer.finish_reason:
                rest = answer.rest()
                yield replace(
                    piece,
                    text=piece.text + rest.text,
                    finish_reason=rest.finish_reason,
                    stop=rest.stop,
                )
                return
            yield piece
            if not agreed:
                return

    def settle(self) -> tuple[int, int]:
        """Take wrong guesses back from the sequence; return how many there were, and right ones."""
        if self.writer is None or self.sequence is None:
            return 0, 0
        guesses, right = len(self.writer.draft.tokens), self.writer.right
        if right < guesses:
            self.sequence.truncate(self.length - (guesses - right))
        self.ticket.drafted_tokens += guesses
        self.ticket.accepted_tokens += right
        return guesses, right
