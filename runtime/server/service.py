"""One model behind the endpoints: requests to prompts, grammars and sampling, answers to deltas.

Blocking work happens on threads; events come from the scheduler's. It knows no HTTP.
"""

from __future__ import annotations

import asyncio
import dataclasses
import secrets
import time
from collections.abc import AsyncIterator, Callable
from functools import cached_property
from typing import Any
from weakref import WeakSet

import msgspec

from ggq.errors import UsageError
from ggq.runtime.batching.refusals import ClosedError
from ggq.runtime.batching.requests import Event, Request, Ticket
from ggq.runtime.batching.scheduler import Scheduler
from ggq.runtime.formats import choose_format
from ggq.runtime.generation.answer import Piece
from ggq.runtime.generation.generation import ContextError
from ggq.runtime.generation.truncation import turns, without_oldest
from ggq.runtime.sampling import SamplingParams
from ggq.runtime.server.constraints import Constraints
from ggq.runtime.server.prompts import Prompt, Prompter
from ggq.runtime.server.schema import AdapterScale, ChatBody, CompletionBody, Message, SamplingBody
from ggq.runtime.server.settings import Settings
from ggq.runtime.server.thoughts import Budgets
from ggq.runtime.template.template import chosen_template

__all__ = ["Answers", "More", "Service", "mix_of", "new_id", "nothing_more"]

_FIELDS = {"sequence": "samplers", "dry_breakers": "dry_sequence_breakers"}
_NAMES = {f.name for f in dataclasses.fields(SamplingParams)}


def new_id(prefix: str) -> str:
    """Return an id such as chatcmpl-..."""
    return f"{prefix}{secrets.token_hex(12)}"


class Answers:
    """The events of one or more tickets as they come; choices are numbered throughout."""

    def __init__(self, service: Service, requests: list[Request]) -> None:
        """Submit the requests; all or none are queued."""
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self.tickets: list[Ticket] = []
        self.ends: dict[int, Piece] = {}  # the last piece of each choice that is finished
        first = 0
        try:
            for request in requests:
                self.tickets.append(service.scheduler.submit(request, self._listener(first)))
                first += request.n
        except Exception:
            self.cancel()
            raise
        self._unfinished = first
        service.follow(self)

    def _listener(self, first: int) -> Callable[[Event], None]:
        def hear(event: Event) -> None:
            event = dataclasses.replace(event, choice=event.choice + first)
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)

        return hear

    def fail(self, error: Exception) -> None:
        """End with an error what is not finished."""
        self._events.put_nowait(Event(0, Piece(""), error))

    def cancel(self) -> None:
        """Stop the work; without effect on what is finished."""
        for ticket in self.tickets:
            ticket.cancel()

    async def __aiter__(self) -> AsyncIterator[Event]:
        """Yield events until all choices are finished; raises an answer's error."""
        while self._unfinished:
            event = await self._events.get()
            if event.error is not None:
                self.cancel()
                raise event.error
            if event.piece.finish_reason == "cancelled":
                raise ClosedError
            if event.piece.finish_reason is not None:
                self._unfinished -= 1
                self.ends[event.choice] = event.piece
            yield event

    def usage(self) -> dict[str, Any]:
        """Return OpenAI's usage object."""
        prompt = sum(t.prompt_tokens for t in self.tickets)
        generated = sum(t.generated_tokens for t in self.tickets)
        drafted = sum(t.drafted_tokens for t in self.tickets)
        accepted = sum(t.accepted_tokens for t in self.tickets)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": generated,
            "total_tokens": prompt + generated,
            "prompt_tokens_details": {"cached_tokens": sum(t.cached_tokens for t in self.tickets)},
            "completion_tokens_details": {
                "accepted_prediction_tokens": accepted,
                "rejected_prediction_tokens": drafted - accepted,
            },
        }

    def timings(self) -> dict[str, Any]:
        """Return llama-server's timings of the first ticket, milliseconds and tokens per second."""
        t = self.tickets[0]
        evaluated, seconds = t.prompt_tokens - t.cached_tokens, t.prompt_seconds
        spent = t.generation_seconds
        return {
            "cache_n": t.cached_tokens,
            "prompt_n": evaluated,
            "prompt_ms": 1e3 * seconds,
            "prompt_per_second": evaluated / seconds if seconds else 0.0,
            "predicted_n": t.generated_tokens,
            "predicted_ms": 1e3 * spent,
            "predicted_per_second": max(t.generated_tokens - 1, 0) / spent if spent else 0.0,
            "draft_n": t.drafted_tokens,
            "draft_n_accepted": t.accepted_tokens,
        }


More = Callable[["Service", Answers], dict[str, Any]]  # what an interface adds to an answer


def nothing_more(service: Service, answers: Answers) -> dict[str, Any]:
    """Add nothing."""
    return {}


def mix_of(adapters: list[Any], chosen: list[AdapterScale]) -> tuple[float, ...]:
    """Return the scale of each adapter, 0 where it is not named; UsageError for others."""
    mix = [0.0] * len(adapters)
    for one in chosen:
        if one.id >= len(mix):
            raise UsageError(f"lora: there is no adapter {one.id}, they are {len(mix)}")
        mix[one.id] = float(one.scale)
    return tuple(mix)


class Service:
    """A model, its scheduler and its formats."""

    def __init__(self, model: Any, scheduler: Scheduler, settings: Settings):
        self.model, self.scheduler, self.settings = model, scheduler, settings
        self.tokenizer = model.tokenizer
        self.created = int(time.time())
        tokens = self.tokenizer.ids
        self.template = chosen_template(model.template, settings.template)
        self.format = choose_format(self.template.source, tokens)
        given = dict(settings.template_kwargs)
        if settings.reasoning_budget == 0:
            given.setdefault("enable_thinking", False)
        self.prompter = Prompter(
            self.template, self.tokenizer, self.format, given, model.gallery, settings.fetch
        )
        self.constraints = Constraints(self.tokenizer, self.format)
        self.budgets = Budgets(self.tokenizer, self.format, settings.reasoning_budget)
        self._shown = frozenset(tokens[mark] for mark in self.format.marks if mark in tokens)
        self._running: WeakSet[Answers] = WeakSet()

    def follow(self, answers: Answers) -> None:
        """Remember answers that are to be told when there is an early end."""
        self._running.add(answers)

    def stop(self) -> None:
        """End all answers with an error, at once: the event loop's thread calls it."""
        for answers in list(self._running):
            answers.fail(ClosedError())

    @cached_property
    def _longest(self) -> int:
        tokenizer = self.tokenizer
        return max(len(tokenizer.token_bytes(i)) for i in range(tokenizer.n_vocab))

    def check_length(self, text: str) -> None:
        """Raise ContextError for a text that cannot fit, whatever its tokens: without making them.

        Making tokens of megabytes takes a minute of a processor. The number told is the least that
        the text can have.
        """
        least = len(text) // self._longest
        if least > self.scheduler.n_ctx:
            raise ContextError(least, self.scheduler.n_ctx)

    def cut(self, text: str) -> str:
        """Return a text without what lies far beyond the context, for those who truncate tokens."""
        return text[: self._longest * self.scheduler.n_ctx]

    def prompt(self, body: ChatBody) -> tuple[ChatBody, Prompt]:
        """Return a chat request's prompt, and the request without the turns that were left out.

        With ``truncation: auto`` the oldest turns go until the prompt leaves room for the answer:
        max_tokens, else a quarter of the context, half of it at most. ContextError where the
        instructions and the last turn alone do not fit.
        """
        if body.truncation != "auto":
            return body, self.prompter.render(body, self.check_length)
        n_ctx = self.scheduler.n_ctx
        asked = self._max_tokens(body)
        room = min(asked if asked is not None else n_ctx // 4, n_ctx // 2)
        made: dict[int, Prompt] = {}

        def fits(messages: list[Message]) -> bool:
            try:
                shorter = msgspec.structs.replace(body, messages=messages)
                made[len(messages)] = prompt = self.prompter.render(shorter, self.check_length)
            except ContextError:
                return False
            return len(prompt.ids) <= n_ctx - room

        roles = [message.role for message in body.messages]
        kept = without_oldest(body.messages, roles, fits)
        if kept is None:  # the last turn alone: the answer gets what room there is, or none
            starts = turns(roles) or [0]
            kept = [*body.messages[: starts[0]], *body.messages[starts[-1] :]]
        body = msgspec.structs.replace(body, messages=kept)
        return body, made.get(len(kept)) or self.prompter.render(body, self.check_length)

    @property
    def fingerprint(self) -> str:
        """OpenAI's system_fingerprint."""
        import ggq

        return f"ggq-{ggq.__version__}"

    def request(self, body: SamplingBody, ids: list[int], client: str, **more: Any) -> Request:
        """Return the scheduler's request of a body."""
        stop = [body.stop] if isinstance(body.stop, str) else body.stop or []
        request = Request(
            ids=ids,
            params=self.params(body),
            max_tokens=self._max_tokens(body),
            stop=tuple(stop),
            n=body.n or 1,
            ignore_eos=bool(body.ignore_eos),
            client=f"{client} {body.user or ''}",
            reuse=body.cache_prompt is not False,
            mix=None if body.lora is None else mix_of(self.model.adapters, body.lora),
        )
        return dataclasses.replace(request, **more)

    def params(self, body: SamplingBody) -> SamplingParams:
        """Return the sampling parameters: the request's, the server's, the file's, the defaults."""
        flags = {name: getattr(body, name) for name in _NAMES if hasattr(body, name)}
        flags["logit_bias"] = self._bias(body.logit_bias) if body.logit_bias else None
        samplers = body.samplers
        flags["sequence"] = ";".join(samplers) if isinstance(samplers, list) else samplers
        flags["dry_breakers"] = (
            None if body.dry_sequence_breakers is None else tuple(body.dry_sequence_breakers)
        )
        if flags.get("repeat_penalty") is None:
            flags["repeat_penalty"] = body.repetition_penalty
        if flags.get("top_k") == -1:  # as transformers' and vLLM's users say it
            flags["top_k"] = 0
        flags["seed"] = None if body.seed == -1 else body.seed
        said = {name: value for name, value in flags.items() if value is not None}
        flags = {**self.settings.sampling, **said}
        try:
            found: SamplingParams = self.model.sampling(flags)
            return found
        except UsageError as error:  # the request's name of the field, not ours
            name = str(error).partition(":")[0]
            raise UsageError(str(error).replace(name, _FIELDS.get(name, name), 1)) from None

    def _bias(self, bias: dict[str, float]) -> dict[int, float]:
        out = {}
        for key, value in bias.items():
            if not key.isascii() or not key.isdigit() or len(key) > 10:
                raise UsageError(f"logit_bias: {key[:32]} is not a token id")
            out[int(key)] = float("-inf") if value == -100 else value
        return out

    def _max_tokens(self, body: SamplingBody) -> int | None:
        names = ("max_completion_tokens", "max_tokens", "n_predict")
        for name in names:
            value = getattr(body, name, None)
            if value == 0 and not isinstance(body, CompletionBody):  # there a prompt may do
                raise UsageError(f"{name}: 0 is not a number of tokens from 1, or -1 for no limit")
            if value is not None and value >= 0:
                limit = self.settings.max_tokens
                found: int | None = value if limit is None else min(value, limit)
                return found
        said = any(getattr(body, name, None) is not None for name in names)  # -1: no limit
        usual = None if said else self.settings.n_predict
        return min((n for n in (usual, self.settings.max_tokens) if n is not None), default=None)

    def shown(self, parsed: bool) -> frozenset[int]:
        """Return the control tokens whose text is part of an answer that is parsed."""
        return self._shown if parsed else frozenset()
