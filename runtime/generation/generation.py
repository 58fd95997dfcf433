"""The loop from prompt ids to text pieces: prefix reuse, sampling, stop strings, ends, statistics.

It drives an abstract session and knows nothing about models, back ends, templates or terminals.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from ggq.errors import UsageError, option
from ggq.runtime.sampling import Sampler, SamplingParams
from ggq.runtime.sampling.candidates import softmax


class Session(Protocol):
    """One sequence with its KV cache; ``n_ctx`` tokens fit."""

    ids: Sequence[int]
    n_ctx: int

    def evaluate(self, ids: Sequence[int]) -> np.ndarray | None:
        """Append ``ids``; return float32 (n_vocab,) logits of the last, None if told to stop."""

    def truncate(self, n: int) -> None:
        """Keep the first ``n`` tokens."""


@dataclass(frozen=True)
class Logprobs:
    """Natural logarithms of probabilities before sampling: the token's, and the likeliest ones."""

    logprob: float
    top: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Piece:
    """Text that became certain with a token; ``finish_reason`` is set on the last piece only.

    ``stop``: the model ended its turn or wrote a stop string. ``length``: max_tokens or the
    context is used up. ``cancelled``: the session was told to stop.
    """

    text: str
    token_id: int | None = None
    finish_reason: str | None = None
    logprobs: Logprobs | None = None


@dataclass
class Stats:
    """What one generation did, filled in while it runs; times in seconds."""

    prompt_tokens: int = 0
    evaluated_tokens: int = 0  # of the prompt: the rest was in the cache
    generated_tokens: int = 0
    prompt_seconds: float = 0.0
    generation_seconds: float = 0.0
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
        return (
            f"prompt {self.evaluated_tokens} tok {self.prompt_rate:.1f} t/s, "
            f"gen {self.generated_tokens} tok {self.generation_rate:.1f} t/s"
        )


class StopStrings:
    """Cuts a stream of text before the first stop string; holds back what may become one."""

    def __init__(self, stop: Sequence[str]) -> None:
        """Take the stop strings; empty ones are ignored."""
        self._stop = [s for s in stop if s]
        self._held = ""
        self.hit = False

    def push(self, text: str) -> str:
        """Return what is certain to be part of the answer; ``hit`` tells that it is complete."""
        self._held += text
        found = [at for s in self._stop if (at := self._held.find(s)) >= 0]
        if found:
            self.hit = True
            out, self._held = self._held[: min(found)], ""
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


class AnswerText:
    """Tokens to text: whole characters only, and none that may belong to a stop string.

    Whoever steps several sequences at once keeps one for each.
    """

    def __init__(self, tokenizer: Any, stop: Sequence[str] = ()) -> None:
        """Take what decodes tokens and the strings that end the answer."""
        self._text, self._stop = tokenizer.stream(), StopStrings(stop)

    @property
    def stopped(self) -> bool:
        """Whether a stop string has ended the answer."""
        return self._stop.hit

    def push(self, token: int, logprobs: Logprobs | None = None) -> Piece:
        """Return the text that became certain with ``token``."""
        return Piece(self._stop.push(self._text.push(token)), token, None, logprobs)

    def finish(self, reason: str | None) -> Piece:
        """Return what was held back, as the last piece."""
        if self.stopped:
            return Piece("", None, reason)
        rest = self._stop.push(self._text.flush())
        return Piece(rest if self.stopped else rest + self._stop.flush(), None, reason)


@dataclass(frozen=True)
class Options:
    """What a generation may be asked for besides sampling, length and stop strings."""

    ignore_eos: bool = False  # forbid the ends of a turn: benchmarks
    logprobs: int | None = None  # how many of the likeliest tokens to report with each token
    constraint: Any = None  # a grammar: sampling.sampler.Constraint
    stats: Stats = field(default_factory=Stats)  # filled in on the way


def generate(
    session: Session,
    tokenizer: Any,
    prompt_ids: Sequence[int],
    params: SamplingParams | None = None,
    max_tokens: int | None = None,
    stop: Sequence[str] = (),
    options: Options | None = None,
) -> Generator[Piece, None, None]:
    """Yield the answer to ``prompt_ids`` piece by piece; the last piece has a finish reason.

    Tokens that the session already holds are not evaluated again. ``max_tokens`` None or negative
    goes on until the context is full. Raises UsageError if the prompt is empty, does not fit the
    context or it or the bias has unknown ids: nothing is ever cut off silently.
    """
    options, params = options or Options(), params or SamplingParams()
    prompt = [int(i) for i in prompt_ids]
    check_prompt(prompt, params, tokenizer.n_vocab, session.n_ctx)
    sampler = Sampler(_biased(params, tokenizer, options), tokenizer, options.constraint)
    sampler.prime(prompt)
    options.stats.prompt_tokens, options.stats.seed = len(prompt), sampler.seed
    room = session.n_ctx - len(prompt) + 1  # the last token need not be evaluated
    limit = room if max_tokens is None or max_tokens < 0 else min(room, max_tokens)
    return _pieces(_tokens(session, tokenizer, prompt, sampler, limit, options), tokenizer, stop)


def _tokens(
    session: Session,
    tokenizer: Any,
    prompt: list[int],
    sampler: Sampler,
    limit: int,
    options: Options,
) -> Iterator[tuple[int | None, str | None, Logprobs | None]]:
    """Yield the tokens of an answer, then None with the reason why it ended."""
    stats = options.stats
    ends = frozenset() if options.ignore_eos else tokenizer.eog_ids
    logits = _evaluate_prompt(session, prompt, stats)
    started, reason = time.perf_counter(), "length"
    while stats.generated_tokens < limit:
        if logits is None:
            reason = "cancelled"
            break
        token = sampler.sample(logits)
        sampler.accept(token)
        stats.generated_tokens += 1
        stats.generation_seconds = time.perf_counter() - started
        if token in ends:
            reason = "stop"
            break
        stats.ids.append(token)
        yield token, None, _logprobs(logits, token, options.logprobs)
        if stats.generated_tokens < limit:
            logits = _evaluate(session, [token])
    yield None, reason, None


def _pieces(
    tokens: Iterator[tuple[int | None, str | None, Logprobs | None]],
    tokenizer: Any,
    stop: Sequence[str],
) -> Generator[Piece, None, None]:
    answer = AnswerText(tokenizer, stop)
    for token, reason, logprobs in tokens:
        if token is None:
            yield answer.finish(reason)
            return
        yield answer.push(token, logprobs)
        if answer.stopped:
            yield answer.finish("stop")
            return


def _evaluate_prompt(session: Session, prompt: list[int], stats: Stats) -> np.ndarray | None:
    """Evaluate what of the prompt the session does not hold yet: at least its last token."""
    shared = min(common_prefix(session.ids, prompt), len(prompt) - 1)
    if shared < len(session.ids):
        session.truncate(shared)
        shared = len(session.ids)  # recurrent layers may go back further
    started = time.perf_counter()
    logits = _evaluate(session, prompt[shared:])
    stats.prompt_seconds = time.perf_counter() - started
    stats.evaluated_tokens = len(prompt) - shared
    return logits


def _evaluate(session: Session, ids: list[int]) -> np.ndarray | None:
    try:
        return session.evaluate(ids)
    except BaseException:  # Ctrl-C too: what was half done is undone, the session stays usable
        session.truncate(len(session.ids))
        raise


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """Return how many first tokens are the same."""
    size = min(len(a), len(b))
    different = np.flatnonzero(np.asarray(a[:size]) != np.asarray(b[:size]))
    return int(different[0]) if len(different) else size


def check_prompt(prompt: Sequence[int], params: SamplingParams, n_vocab: int, n_ctx: int) -> None:
    """Raise UsageError if a prompt or a bias cannot be used, ContextError if it is too long."""
    if not len(prompt):
        raise UsageError("the prompt is empty: it has no tokens")
    for ids, label in ((prompt, ""), (params.logit_bias, "logit_bias: ")):
        bad = next((i for i in ids if not 0 <= i < n_vocab), None)
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


def _biased(params: SamplingParams, tokenizer: Any, options: Options) -> SamplingParams:
    """Return the parameters, with the ends of a turn forbidden if they shall not end it."""
    if not options.ignore_eos:
        return params
    forbidden = dict.fromkeys(tokenizer.eog_ids, -np.inf)
    return params.replace(logit_bias={**params.logit_bias, **forbidden})


def _logprobs(logits: np.ndarray, token: int, count: int | None) -> Logprobs | None:
    if count is None:
        return None
    logs = np.log(np.maximum(softmax(np.asarray(logits)), np.finfo(np.float32).tiny))
    top = np.argsort(-logs, kind="stable")[:count]
    return Logprobs(float(logs[token]), tuple((int(i), float(logs[i])) for i in top))
