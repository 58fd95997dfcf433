"""Continuous batching: one thread steps the engine, answers join and leave between its tokens.

Every step takes the next token of each running answer and a chunk of the prompts that wait, small
enough that running answers keep flowing. Prompts start from the longest prefix that is in the
cache. It knows no HTTP and no text formats.
"""

from __future__ import annotations

import threading
import time
from collections import abc
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import numpy as np

from ggq.errors import GGQError, UsageError
from ggq.runtime.batching.jobs import Jobs
from ggq.runtime.batching.looks import Looks
from ggq.runtime.batching.pacing import Pace
from ggq.runtime.batching.prefixes import FairQueue, PrefixStore
from ggq.runtime.batching.refusals import ClosedError, QueueFullError
from ggq.runtime.batching.requests import Event, Request, Task, Ticket
from ggq.runtime.batching.savings import Savings
from ggq.runtime.batching.stats import SchedulerStats
from ggq.runtime.cache.disk import BLOCK
from ggq.runtime.cache.kvcache import Sequence
from ggq.runtime.cache.layout import PAGE, STEP_TOKENS
from ggq.runtime.engine.backend import Part
from ggq.runtime.engine.engine import Engine
from ggq.runtime.generation.answer import Piece, Tokenizer
from ggq.runtime.generation.generation import common_prefix

__all__ = ["Scheduler"]

_MIN_SHARED = 4  # tokens worth sharing: below, copying a page costs more than evaluating them
_NONE = Savings()
_SMOOTH = 0.2  # weight of the newest request's time in the mean


class Scheduler:
    """Answers requests on one engine: ``n_slots`` at a time, each in its own ``n_ctx`` tokens."""

    def __init__(
        self,
        engine: Engine,
        tokenizer: Tokenizer,
        *,
        n_slots: int = 4,
        n_ctx: int | None = None,
        max_waiting: int = 64,
        batch: int = STEP_TOKENS,
        savings: Savings = _NONE,
    ):
        if not 1 <= n_slots <= batch // 2:
            raise UsageError(f"{n_slots} parallel answers: from 1 to {batch // 2} are possible")
        self.engine, self.tokenizer = engine, tokenizer
        self.speculation, self.disk = savings.speculation, savings.disk
        self.n_slots, self.max_waiting = n_slots, max_waiting
        # an encoder's texts are done between steps, one after the other
        pages = engine.cache.n_pages // (n_slots if engine.hp.causal else 1)
        self.n_ctx = min(n_ctx or engine.n_ctx, pages * PAGE)
        if self.n_ctx < 1:
            raise UsageError(
                f"the cache of {engine.n_ctx} tokens is too small for {n_slots} answers"
            )
        self.stats = SchedulerStats()
        self._store = PrefixStore(engine.cache)
        self._waiting = FairQueue()
        self._running: list[Task] = []
        self._jobs = Jobs()
        self._news = threading.Condition()
        self._looks = Looks(engine.looker.gallery if engine.looker else None, self._news)
        self._closed = False
        self.pace = Pace(batch)
        self._request_s = 1.0
        self._thread = threading.Thread(target=self._work, name="ggq-scheduler", daemon=True)

    # -- any thread

    def start(self) -> Scheduler:
        """Start the thread."""
        self._thread.start()
        return self

    def submit(self, request: Request, listener: Callable[[Event], None]) -> Ticket:
        """Queue a request; ``listener`` is called on the scheduler's thread and must not block.

        Raises UsageError for a prompt that cannot be evaluated and QueueFullError.
        """
        self.engine.check_generates()
        request.check(self.tokenizer.n_vocab, self.n_ctx)
        if request.mix is None:  # as it is now: it may change before the request begins
            request = replace(request, mix=self.engine.mix)
        ticket = Ticket(request, listener)
        prompt = np.asarray(request.ids, np.int64)
        ticket.pictures = self._looks.of(prompt)
        with self._news:
            if self._closed:
                raise ClosedError
            # as many as there are free slots never count as waiting
            places = self.max_waiting + self.n_slots - len(self._running)
            if len(self._waiting) + request.n > max(places, request.n * (not self._waiting)):
                self.stats.refused += 1
                raise QueueFullError(len(self._waiting), self._retry_after())
            for choice in range(request.n):
                self._waiting.push(request.client, Task(ticket, choice, prompt))
            self._news.notify()
        return ticket

    def call(self, job: Callable[[], Any], n_positions: int = 0) -> Future[Any]:
        """Run ``job()`` between two steps, once the cache has ``n_positions`` free."""
        with self._news:
            if self._closed:
                raise ClosedError
            future = self._jobs.add(job, n_positions)
            self._news.notify()
        return future

    @property
    def n_waiting(self) -> int:
        return len(self._waiting)

    @property
    def n_running(self) -> int:
        return len(self._running)

    @property
    def used_positions(self) -> int:
        """Positions of the cache that answers and kept prefixes hold."""
        return self.engine.cache.n_pages * PAGE - self.engine.cache.free_positions

    def close(self, seconds: float | None = None) -> bool:
        """Cancel everything and end the thread; return whether it ended within ``seconds``."""
        with self._news:
            self._closed = True
            self._news.notify()
        if self._thread.is_alive():
            self._thread.join(seconds)
        return not self._thread.is_alive()

    # -- the scheduler's thread

    def _work(self) -> None:
        while True:
            with self._news:
                while not (self._closed or self._waiting or self._running or self._jobs):
                    self._news.wait()
                if self._closed:
                    break
            self._jobs.run(self._has_room)
            self.step()
        for task in [*self._running, *self._waiting.remove(lambda _: False)]:
            self._leave(task, Piece("", None, "cancelled"))
        self._jobs.refuse()
        self._looks.close()
        self._store.clear()

    def keep(self, ids: abc.Sequence[int], sequence: Sequence) -> None:
        """Take over what a job evaluated, for prompts that begin with ``ids``."""
        self._store.keep(np.asarray(ids, np.int64), sequence)

    def step(self) -> None:
        """Do one step for everyone who is here; it is what the thread repeats."""
        self._drop_cancelled()
        self._admit()
        batch = self._compose()
        if not batch:
            self._looks.rest()
            return
        work = _work_of(batch)
        started = time.perf_counter()
        try:
            self._make_room(batch)
            logits = self.engine.step([part for _, part in batch])
        except Exception as error:
            for task, _ in batch:
                self._fail(task, error)
            return
        seconds = time.perf_counter() - started
        self._measure(*work, seconds)
        writers = [(task.writer, len(part.ids)) for task, part in batch if task.writer]
        self._take(batch, logits)
        if self.speculation is not None and all(part.guesses is not None for _, part in batch):
            self.speculation.learn(writers, seconds)

    def _take(self, batch: list[tuple[Task, Part]], logits: np.ndarray) -> None:
        """Give each answer its rows."""
        row = 0
        for task, part in batch:
            rows = logits[row : row + int(part.wanted.sum())]
            row += len(rows)
            if len(rows):
                self._advance(task, rows)
            else:
                self._keep(task)

    def _keep(self, task: Task) -> None:
        """Have what a task evaluated written to disk."""
        sequence, disk = task.sequence, self.disk
        if disk is not None and sequence is not None and task.request.reuse and disk.due(sequence):
            disk.keep(sequence, task.evaluated_ids(), len(task.prompt))

    def _drop_cancelled(self) -> None:
        with self._news:
            gone = self._waiting.remove(lambda task: not task.ticket.cancelled)
        gone += [task for task in self._running if task.ticket.cancelled]
        for task in gone:
            self._leave(task, Piece("", None, "cancelled"))

    def _admit(self) -> None:
        while len(self._running) < self.n_slots:
            with self._news:
                if not self._waiting:
                    return
                task = self._waiting.pop()
                self._running.append(task)  # at once: who looks sees it either waiting or running
            try:
                task.begin(self.tokenizer, self.n_ctx, self.speculation)
            except Exception as error:
                self._fail(task, error)

    def _compose(self) -> list[tuple[Task, Part]]:
        """Choose what each running answer gives to the next step."""
        for i, task in enumerate(self._running):
            if task.sequence is None:
                self._start(task, self._running[:i])
        answering = [t for t in self._running if t.sequence is not None and not t.prefilling]
        prefilling = [t for t in self._running if t.sequence is not None and t.prefilling]
        prefilling = [task for task in prefilling if self._looks.seen(task, self._fail)]
        if answering and not prefilling and self.speculation is not None:
            plans = [(t.writer, *t.outlook) for t in answering if t.writer]
            self.speculation.plan(plans, sum(t.n_pending for t in answering))
        batch = [(t, t.next_part(1)) for t in answering]
        depth = sum(t.length for t in prefilling) / max(len(prefilling), 1)
        budget = self.pace.budget(len(answering), depth)
        for left, task in zip(range(len(prefilling), 0, -1), prefilling, strict=True):
            if not budget:
                break
            limit = max(budget // left, 1)
            if self.disk is not None and task.sequence is not None:
                limit = self.disk.cut(task.sequence, limit, len(task.prompt))
            limit = self.engine.cut(task.prompt[task.length :], limit)
            if limit > self.engine.max_tokens - sum(len(part.ids) for _, part in batch):
                continue  # a picture that is not cut: the next step has room
            part = task.next_part(limit)
            budget -= len(part.ids)
            batch.append((task, part))
        return batch

    def _start(self, task: Task, earlier: list[Task]) -> None:
        """Give a task its sequence from the longest known prefix, unless a longer one is coming."""
        ids = task.prompt[:-1]  # the last token is always evaluated: its logits are needed
        if not task.request.reuse:
            ids = ids[:0]
        mix = task.request.mix or ()
        length, donor = self._store.best(ids, mix)
        longest = self._store.shared(ids, mix)
        alike = [other for other in self._running if other.request.mix == mix]
        for other in alike:
            if other.sequence is not None:
                shared = common_prefix(ids, other.evaluated_ids())
                longest, shared = max(longest, shared), other.sequence.reachable(shared)
                if shared > length:
                    length, donor = shared, other.sequence
        coming = [
            (common_prefix(ids, o.prompt), o.sequence)
            for o in earlier
            if o.prefilling and o in alike
        ]
        later, ahead = max(coming, default=(0, None), key=lambda pair: pair[0])
        if later > longest + _MIN_SHARED:
            if ahead is not None:
                ahead.pin(later)
            return
        if length < _MIN_SHARED:
            length, donor = 0, None
        task.sequence = self._recalled(ids, length, mix)
        if task.sequence is None:
            task.sequence = self.engine.sequence(mix) if donor is None else donor.fork(length)
        if longest > task.sequence.length:  # the next prompt that begins so finds it
            task.sequence.pin(longest)
        if not task.ticket.started:
            task.ticket.started = time.perf_counter()
            task.ticket.cached_tokens = task.length
        self.stats.prompt_tokens += len(task.prompt)
        self.stats.cached_tokens += task.length

    def _recalled(self, ids: np.ndarray, length: int, mix: tuple[float, ...]) -> Sequence | None:
        """Return a sequence from disk that holds a block more of ``ids`` than ``length``."""
        reach = 0 if self.disk is None else self.disk.reach(ids, mix)
        if self.disk is None or reach < length + BLOCK:
            return None
        self._store.make_room(reach // PAGE)
        sequence = self.engine.sequence(mix)
        if self.disk.restore(sequence, ids) > length:
            if self.engine.looker is not None:
                self.engine.looker.note(sequence, ids)
            return sequence
        sequence.free()
        return None

    def _make_room(self, batch: list[tuple[Task, Part]]) -> None:
        """Free the pages that the step will take; running answers always fit, prefixes may go."""
        cache, needed = self.engine.cache, 0
        for task, part in batch:
            start, end = task.length, task.length + len(part.ids)
            needed += -(-end // PAGE) - -(-start // PAGE)
            if start % PAGE and cache.is_shared(int(part.sequence.table[start // PAGE])):
                needed += 1  # copied before it is written
        self._store.make_room(needed)

    def _advance(self, task: Task, rows: np.ndarray) -> None:
        """Give an answer the rows of its tokens; the last one may end it."""
        ticket, sampled, last = task.ticket, task.n_sampled, Piece("")
        try:
            for piece in task.take(rows):
                ticket.first_token = ticket.first_token or time.perf_counter()
                ticket.generated_tokens += task.n_sampled - sampled
                self.stats.generated_tokens += task.n_sampled - sampled
                sampled, last = task.n_sampled, piece
                if not piece.finish_reason and (piece.text or piece.logprobs):
                    self._tell(Event(task.choice, piece), ticket)
        except Exception as error:
            self._fail(task, error)
            return
        guesses, right = task.settle()
        self.stats.drafted_tokens += guesses
        self.stats.accepted_tokens += right
        self._keep(task)
        if last.finish_reason:
            self._leave(task, last)

    def _leave(self, task: Task, piece: Piece, error: Exception | None = None) -> None:
        """End a task; what it evaluated is kept for others, unless it failed."""
        if task in self._running:
            self._running.remove(task)
        if task.writer is not None:
            task.writer.close()
            task.writer = None
        ticket = task.ticket
        ticket.unfinished -= 1
        if not ticket.unfinished:
            ticket.finished = time.perf_counter()
            self._request_s += _SMOOTH * (ticket.finished - ticket.submitted - self._request_s)
        if task.sequence is not None:
            if error is None:
                self._store.keep(task.evaluated_ids(), task.sequence)
            else:
                task.sequence.free()
            task.sequence = None
        self.stats.cancelled += piece.finish_reason == "cancelled"
        self.stats.failed += error is not None
        self.stats.finished += piece.finish_reason in ("stop", "length")
        self._tell(Event(task.choice, piece, error), ticket)

    def _fail(self, task: Task, error: Exception) -> None:
        if not isinstance(error, GGQError):
            error.add_note("while stepping the engine") if hasattr(error, "add_note") else None
        self._leave(task, Piece("", None, "error"), error)

    def _tell(self, event: Event, ticket: Ticket) -> None:
        try:
            ticket.listener(event)
        except Exception:  # a listener that has gone away must not stop the others
            ticket.cancelled = True

    def _measure(
        self, n_answers: int, n_more: int, n_prompt: int, positions: float, seconds: float
    ) -> None:
        self.stats.steps += 1
        self.stats.busy_seconds += seconds
        if n_more:  # guesses: not what answers take
            return
        if not n_prompt:
            self.pace.answers(n_answers, seconds)
        elif n_answers:
            self.pace.mixed(n_answers, n_prompt, positions, seconds)

    def _has_room(self, n_positions: int) -> bool:
        """Return whether a job may begin: answers that end make room for it, if there are any."""
        return bool(self._store.make_room(-(-n_positions // PAGE))) or not self._running

    def _retry_after(self) -> int:
        return max(1, min(60, round(self._request_s * len(self._waiting) / self.n_slots)))


def _work_of(batch: list[tuple[Task, Part]]) -> tuple[int, int, int, float]:
    """Return answers, their further tokens, prompt tokens and the sum of these' positions."""
    prompts = [(len(part.ids), task.length) for task, part in batch if task.prefilling]
    positions = sum(n * (start + n / 2) for n, start in prompts)
    n_answers, n_prompt = len(batch) - len(prompts), sum(n for n, _ in prompts)
    n_more = sum(len(part.ids) for _, part in batch) - n_prompt - n_answers
    return n_answers, n_more, n_prompt, positions
