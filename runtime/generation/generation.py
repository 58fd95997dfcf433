"""The loop from prompt ids to text pieces on one sequence: prefix reuse, steps, statistics.

It drives an abstract session and knows nothing about models, back ends, templates or terminals.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import numpy as np

from ggq.errors import UsageError, option
from ggq.runtime.cache.pictured import is_picture
from ggq.runtime.generation.answer import Answer, AnswerConfig, Piece, Tokenizer
from ggq.runtime.generation.drafting.speculation import Speculation, Writer
from ggq.runtime.sampling import SamplingParams

__all__ = [
    "ContextError",
    "Options",
    "Session",
    "Stats",
    "check_prompt",
    "common_prefix",
    "generate",
]

_Rows = TypeVar("_Rows")


class Session(Protocol):
    """One sequence with its KV cache; ``n_ctx`` tokens fit."""

    @property
    def turn(self) -> AbstractContextManager[Any]:
        """What nobody else's step comes between; asked for only where something guesses."""

    @property
    def speculation(self) -> Speculation | None:
        """What guesses the next tokens of its answers, None where nothing does."""

    @property
    def ids(self) -> list[int]:
        """The tokens that it holds."""

    @property
    def n_ctx(self) -> int:
        """The most tokens that it can hold."""

    def evaluate(self, ids: Sequence[int]) -> np.ndarray | None:
        """Append ``ids``; return float32 (n_vocab,) logits of the last, None if told to stop."""

    def recall(self, ids: Sequence[int]) -> None:
        """Hold the first of ``ids`` that were evaluated before, if more than it holds are known."""

    def attempt(self, ids: Sequence[int], guesses: int) -> np.ndarray:
        """Append an answer's tokens, of which the last ``guesses`` may be wrong.

        Returns float32 (guesses + 1, n_vocab) logits, of the last certain token first.
        """

    @property
    def room(self) -> int:
        """How many tokens may be appended now."""

    def truncate(self, n: int) -> None:
        """Keep the first ``n`` tokens, or fewer where recurrent layers cannot go back to there."""


@dataclass
class Stats:
    """What one generation did, filled in while it runs; times in seconds."""

    prompt_tokens: int = 0
    evaluated_tokens: int = 0  # of the prompt: the rest was in the cache
    generated_tokens: int = 0
    prompt_seconds: float = 0.0
    generation_seconds: float = 0.0
    drafted_tokens: int = 0  # guesses that were tried, and those that the model wrote, too
    accepted_tokens: int = 0
    seed: int | None = None
    ids: list[int] = field(default_factory=list)  # generated tokens, the end of turn left out

    @property
    def prompt_rate(self) -> float:
        """Return evaluated prompt tokens per second."""
        return self.evaluated_tokens / self.prompt_seconds if self.prompt_seconds else 0.0

    @property
    def generation_rate(self) -> float:
        """Return generated tokens per second."""
        seconds = self.generation_seconds
        return self.generated_tokens / seconds if seconds else 0.0

    def line(self) -> str:
        """Return the statistics as one line for people."""
        guesses = ""
        if self.drafted_tokens:
            guesses = f", {self.accepted_tokens} of {self.drafted_tokens} drafted tok right"
        return (
            f"prompt {self.evaluated_tokens} tok {self.prompt_rate:.1f} t/s, "
            f"gen {self.generated_tokens} tok {self.generation_rate:.1f} t/s{guesses}"
        )


@dataclass(frozen=True)
class Options:
    """What a generation may be asked for besides sampling, length and stop strings."""

    ignore_eos: bool = False  # forbid the ends of a turn: benchmarks
    logprobs: int | None = None  # how many of the likeliest tokens to report with each token
    constraint: Any = None  # a grammar: sampling.sampler.Constraint
    stats: Stats = field(default_factory=Stats)  # filled in on the way
    shown: frozenset[int] = frozenset()  # control tokens whose text belongs to the answer


def generate(
    session: Session,
    tokenizer: Tokenizer,
    prompt_ids: Sequence[int],
    params: SamplingParams | None = None,
    max_tokens: int | None = None,
    stop: Sequence[str] = (),
    options: Options | None = None,
) -> Generator[Piece, None, None]:
    """Yield the answer to ``prompt_ids`` piece by piece; the last piece has a finish reason.

    Tokens that the session already holds are not evaluated again. ``max_tokens`` None or -1
    goes on until the context is full. Raises UsageError if the prompt is empty, does not fit the
    context or it or the bias has unknown ids: nothing is ever cut off silently.
    """
    options, params = options or Options(), params or SamplingParams()
    prompt = [int(i) for i in prompt_ids]
    check_prompt(prompt, params, tokenizer.n_vocab, session.n_ctx)
    config = AnswerConfig(max_tokens, stop, options.ignore_eos, options.logprobs, options.shown)
    answer = Answer(tokenizer, prompt, params, config, session.n_ctx, options.constraint)
    stats = options.stats
    stats.prompt_tokens, stats.seed, stats.ids = len(prompt), answer.seed, answer.tokens
    return _pieces(session, prompt, answer, stats)


def _pieces(
    session: Session, prompt: list[int], answer: Answer, stats: Stats
) -> Generator[Piece, None, None]:
    """Yield a piece for each token of the answer, then what was held back and why it ended."""
    logits = _evaluate_prompt(session, prompt, stats)
    stepper = _Stepper(session, prompt, answer, stats)
    rows: Iterable[np.ndarray] | None = None if logits is None else [logits]
    try:
        while answer.finish_reason is None:
            if rows is None:
                answer.cancel()
                break
            for row in rows:
                piece = answer.take(row)
                stats.generated_tokens = answer.n_sampled
                stats.generation_seconds = stepper.elapsed
                if piece.token_id is None:  # the end of the turn
                    break
                agreed = stepper.agrees(piece.token_id)
                yield piece
                if answer.finish_reason or not agreed:
                    break
            stepper.judge()
            if answer.finish_reason is None:
                rows = stepper.step()
    finally:
        stepper.close()
    yield answer.rest()


class _Stepper:
    """Evaluates an answer's tokens one by one, or with guesses of the next ones behind."""

    def __init__(self, session: Session, prompt: list[int], answer: Answer, stats: Stats) -> None:
        self._session, self._answer, self._stats = session, answer, stats
        self._ids = list(prompt)  # and the answer's tokens
        self._known = [max(i, 0) for i in prompt]  # likewise: what guesses knows no pictures
        self._speculation = session.speculation
        self._writer: Writer | None = None
        if self._speculation is not None:
            self._writer = self._speculation.start()
        self._appended = 0
        self._seconds = 0.0
        self._started = time.perf_counter()

    @property
    def elapsed(self) -> float:
        """Seconds since the prompt was evaluated."""
        return time.perf_counter() - self._started

    def agrees(self, token: int) -> bool:
        """Take the answer's next token; return whether it is the next guess."""
        self._ids.append(token)
        self._known.append(token)
        return self._writer is not None and self._writer.accept(token)

    def step(self) -> Iterable[np.ndarray] | None:
        """Evaluate what is new and perhaps guesses; return the rows, None if told to stop."""
        held = len(self._session.ids)
        new, writer = self._ids[held:], self._writer
        if writer is None or self._speculation is None:
            logits = _evaluate(self._session, new)
            return None if logits is None else [logits]
        again = len(new) > 1  # evaluated once more: that step must not be taken back, too
        with self._session.turn:  # the step is timed: nobody else's may be a part of it
            room = 0 if again else min(self._answer.room, self._session.room) - 1
            self._speculation.plan([(writer, self._known, room)], len(new))
            guesses, started = list(writer.draft.tokens), time.perf_counter()
            rows = _undone(
                self._session, lambda: self._session.attempt(new + guesses, len(guesses))
            )
            self._seconds = time.perf_counter() - started
        self._appended = len(new) + len(guesses)
        return rows

    def judge(self) -> None:
        """Take wrong guesses back and learn from the step."""
        writer, speculation, session = self._writer, self._speculation, self._session
        if writer is None or speculation is None or not self._appended:
            return
        wrong = len(writer.draft.tokens) - writer.right
        if wrong:
            session.truncate(len(session.ids) - wrong)
        with session.turn:
            speculation.learn([(writer, self._appended)], self._seconds)
        self._appended = 0
        self._stats.drafted_tokens = writer.drafted
        self._stats.accepted_tokens = writer.accepted

    def close(self) -> None:
        """End the answer, wherever it is broken off."""
        self.judge()
        if self._writer is not None:
            with self._session.turn:
                self._writer.close()


def _evaluate_prompt(session: Session, prompt: list[int], stats: Stats) -> np.ndarray | None:
    """Evaluate what of the prompt the session does not hold yet: at least its last token."""
    shared = min(common_prefix(session.ids, prompt), len(prompt) - 1)
    if shared < len(session.ids):
        session.truncate(shared)  # recurrent layers may go back further
    started = time.perf_counter()
    session.recall(prompt[:-1])
    shared = len(session.ids)
    logits = _evaluate(session, prompt[shared:])
    stats.prompt_seconds = time.perf_counter() - started
    stats.evaluated_tokens = len(prompt) - shared
    return logits


def _evaluate(session: Session, ids: list[int]) -> np.ndarray | None:
    return _undone(session, lambda: session.evaluate(ids))


def _undone(session: Session, evaluate: Callable[[], _Rows]) -> _Rows:
    try:
        return evaluate()
    except BaseException:  # Ctrl-C too: what was half done is undone, the session stays usable
        session.truncate(len(session.ids))
        raise


def common_prefix(a: Sequence[int] | np.ndarray, b: Sequence[int] | np.ndarray) -> int:
    """Return how many first tokens are the same."""
    size = min(len(a), len(b))
    different = np.flatnonzero(np.asarray(a[:size]) != np.asarray(b[:size]))
    return int(different[0]) if len(different) else size


def check_prompt(prompt: Sequence[int], params: SamplingParams, n_vocab: int, n_ctx: int) -> None:
    """Raise UsageError if a prompt or a bias cannot be used, ContextError if it is too long."""
    if not len(prompt):
        raise UsageError("the prompt is empty: it has no tokens")
    for ids, label in ((prompt, ""), (params.logit_bias, "logit_bias: ")):
        bad = next((i for i in ids if not (0 <= i < n_vocab or is_picture(i))), None)
        if bad is not None:
            raise UsageError(f"{label}token id {bad} is outside the vocabulary of {n_vocab}")
    if len(prompt) > n_ctx:
        raise ContextError(len(prompt), n_ctx)


class ContextError(UsageError):
    """The prompt does not fit the context; carries both numbers for those who report them."""

    def __init__(self, n_prompt: int, n_ctx: int) -> None:
        """Take the prompt's tokens and the context's."""
        super().__init__(
            f"the prompt has {n_prompt} tokens, more than the context of {n_ctx}:"
            f" shorten it or raise the context size ({option('--ctx', 'n_ctx')})"
        )
        self.n_prompt, self.n_ctx = n_prompt, n_ctx
