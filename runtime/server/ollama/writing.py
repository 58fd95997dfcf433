"""Answers as Ollama writes them: objects on lines, tool calls whole, times in nanoseconds."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec

from ggq.runtime.formats.base import CALL, CONTENT, Delta
from ggq.runtime.generation.answer import Logprobs, Piece
from ggq.runtime.server.chat import ChatRun, token_logprob
from ggq.runtime.server.ollama.schema import timestamp
from ggq.runtime.server.service import Answers, Service
from ggq.runtime.server.streaming import EventStream, reported

__all__ = ["Clock", "LineStream", "Parts", "durations", "line", "parts_of", "whole"]

Parts = dict[str, Any]  # thinking, content, tool_calls, logprobs: of them what there is


def line(value: Any) -> bytes:
    """Return an object as a line of a stream."""
    return msgspec.json.encode(value) + b"\n"


def _failed(error: Exception) -> bytes:
    return line(reported(error).ollama_body())


class LineStream(EventStream):
    """A stream of objects, each on its line."""

    media_type, ping = "application/x-ndjson", b""  # its clients read every line as an object

    def __init__(
        self, chunks: AsyncIterator[bytes], close: Callable[[], None] = lambda: None
    ) -> None:
        """Take the lines, and what to do at their end, however it comes."""
        super().__init__(chunks, close, 3600.0, _failed)


class Clock:
    """When a request came, and when its model was there."""

    def __init__(self) -> None:
        self._came = self._loaded = time.perf_counter_ns()

    def loaded(self) -> None:
        """Say that the model is there."""
        self._loaded = time.perf_counter_ns()

    def times(self) -> dict[str, int]:
        """Return the nanoseconds since the request came, and until the model was there."""
        total = time.perf_counter_ns() - self._came
        return {"total_duration": total, "load_duration": self._loaded - self._came}


def durations(clock: Clock, answers: Answers) -> dict[str, int]:
    """Return the numbers at the end of an answer: tokens, and nanoseconds."""
    timings, usage = answers.timings(), answers.usage()
    return {
        **clock.times(),
        "prompt_eval_count": usage["prompt_tokens"],
        "prompt_eval_duration": int(timings["prompt_ms"] * 1e6),
        "eval_count": usage["completion_tokens"],
        "eval_duration": int(timings["predicted_ms"] * 1e6),
    }


async def parts_of(run: ChatRun) -> AsyncIterator[tuple[Parts, str | None]]:
    """Yield what is new of an answer, and at its end why it ends (stop or length)."""
    calls: dict[int, list[Delta]] = {}
    async for _, deltas, piece in run.deltas():
        logprobs = _logprobs(run.service, piece)
        for delta in deltas:
            if delta.kind == CALL:
                done = [i for i in calls if i != delta.index]
                for i in done:
                    yield {"tool_calls": [_call(calls.pop(i))]}, None
                calls.setdefault(delta.index, []).append(delta)
                continue
            name = "content" if delta.kind == CONTENT else "thinking"
            yield {name: delta.text, **logprobs}, None
            logprobs = {}
        if piece.finish_reason:
            if calls:
                yield {"tool_calls": [_call(found) for found in calls.values()], **logprobs}, None
            elif logprobs:
                yield logprobs, None
            yield {}, "length" if piece.finish_reason == "length" else "stop"
        elif logprobs:
            yield logprobs, None


def whole(found: list[Parts]) -> Parts:
    """Return the parts of an answer put together."""
    out: Parts = {}
    for parts in found:
        for name, value in parts.items():
            out[name] = out[name] + value if name in out else value
    return out


def _call(deltas: list[Delta]) -> dict[str, Any]:
    first = deltas[0].call
    assert first is not None
    text = first.arguments + "".join(d.text for d in deltas)
    try:
        arguments = msgspec.json.decode(text)
    except msgspec.DecodeError:  # cut off at the limit of tokens
        arguments = {}
    index = deltas[0].index
    function = {"index": index, "name": first.name, "arguments": arguments}
    return {"id": f"call_{deltas[0].id}", "function": function}


def _logprobs(service: Service, piece: Piece) -> Parts:
    found = piece.logprobs
    if not isinstance(found, Logprobs) or piece.token_id is None:
        return {}
    entry = token_logprob(service, piece.token_id, found.logprob)
    entry["top_logprobs"] = [token_logprob(service, *pair) for pair in found.top]
    return {"logprobs": [entry]}


def base(model: str) -> dict[str, Any]:
    """Return what each object begins with."""
    return {"model": model, "created_at": timestamp()}
