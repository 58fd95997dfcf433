"""OpenAI's batch lines answered without a network: in order, several at once, resumable.

An output line is written when it and all before it are done, so a killed run goes on where it was.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from ggq.errors import UsageError, printable
from ggq.outputs import output_file
from ggq.runtime.server.chat import answer_chat
from ggq.runtime.server.completions import answer_completion
from ggq.runtime.server.embeddings import answer_embedding
from ggq.runtime.server.errors import APIError
from ggq.runtime.server.rerank import answer_rerank
from ggq.runtime.server.schema import (
    ChatBody,
    CompletionBody,
    EmbeddingBody,
    RerankBody,
    decode,
)
from ggq.runtime.server.service import Service, new_id
from ggq.runtime.server.streaming import reported

__all__ = ["run_batch"]

_ENDPOINTS: dict[str, tuple[Any, Any]] = {
    "/v1/chat/completions": (ChatBody, answer_chat),
    "/v1/completions": (CompletionBody, answer_completion),
    "/v1/embeddings": (EmbeddingBody, answer_embedding),
    "/v1/rerank": (RerankBody, answer_rerank),
}
_START = b'{"id":"batch_req_'  # of every output line
_AHEAD = 4  # requests per slot that are prepared or wait for an earlier one to be written


class _Line(msgspec.Struct):
    """One line of the input."""

    custom_id: str
    url: str = "/v1/chat/completions"
    method: str = "POST"
    body: msgspec.Raw = msgspec.Raw(b"{}")


async def run_batch(
    service: Service, source: Path, out: Path, progress: Callable[[int], None] = lambda n: None
) -> int:
    """Answer every line of ``source`` into ``out``; return how many lines say an error.

    Lines that ``out`` already has are kept. ``progress`` is told the number of lines done. Raises
    UsageError where ``out`` belongs to another input.
    """
    out = output_file(out)
    done, failed = _resume(source, out)
    progress(done)
    window: asyncio.Queue[asyncio.Task[dict[str, Any]] | None] = asyncio.Queue(
        _AHEAD * service.scheduler.n_slots
    )

    async def feed() -> None:
        for number, raw in enumerate(_lines(source)):
            if number >= done:
                await window.put(asyncio.create_task(_answer(service, raw)))
        await window.put(None)

    feeding = asyncio.create_task(feed())
    task = None
    try:
        with out.open("ab") as file:
            while (task := await window.get()) is not None:
                line = await task
                failed += _is_failure(line)
                file.write(msgspec.json.encode(line) + b"\n")
                file.flush()
                done += 1
                progress(done)
            os.fsync(file.fileno())
        await feeding
    finally:
        waiting = [feeding, task, *(window.get_nowait() for _ in range(window.qsize()))]
        for other in waiting:
            if other is not None:
                other.cancel()
    return failed


async def _answer(service: Service, raw: bytes) -> dict[str, Any]:
    """Return the output line of an input line."""
    custom_id, status, error = None, 200, None
    try:
        line = decode(raw, _Line)
        custom_id = line.custom_id
        if line.method != "POST" or line.url not in _ENDPOINTS:
            raise APIError(400, f"url: {line.method} {line.url} is not served in batches", "url")
        kind, answer = _ENDPOINTS[line.url]
        body = await answer(service, decode(bytes(line.body), kind), "batch")
    except Exception as problem:
        found = reported(problem)
        status, body = found.status, found.body()
        if custom_id is None:
            error = {"code": "invalid_line", "message": found.message}
    response = {"status_code": status, "request_id": new_id("req_"), "body": body}
    return {
        "id": new_id("batch_req_"),
        "custom_id": custom_id,
        "response": None if error else response,
        "error": error,
    }


def _lines(source: Path) -> Iterator[bytes]:
    """Yield the lines that are not empty."""
    try:
        with source.open("rb") as file:
            yield from (line for line in file if line.strip())
    except OSError as error:
        raise UsageError(f"{printable(source)}: {error.strerror}") from None


def _resume(source: Path, out: Path) -> tuple[int, int]:
    """Cut half a line off ``out``; return how many lines are done, and how many of them failed.

    UsageError where ``out`` holds anything else than answers: it is left as it is.
    """
    if not out.exists():
        next(_lines(source), None)  # says so if there is no input
        return 0, 0
    done = failed = size = 0
    inputs = _lines(source)
    with out.open("rb") as file:
        for raw in file:
            if not raw.endswith(b"\n") and (raw[: len(_START)] == _START[: len(raw)]):
                break  # a killed run's last line
            line = _output_line(raw)
            if line is None:
                message = f"{printable(out)}: line {done + 1} is no answer of a batch"
                raise UsageError(f"{message}; name another file or delete it")
            if line.get("custom_id") != _custom_id(next(inputs, b"")):
                message = f"{printable(out)}: line {done + 1} answers another input"
                raise UsageError(f"{message}; name another file or delete it")
            done, failed, size = done + 1, failed + _is_failure(line), size + len(raw)
    os.truncate(out, size)
    return done, failed


def _output_line(raw: bytes) -> dict[str, Any] | None:
    """Return an output line's object, None where it is none."""
    try:
        line = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    whole = isinstance(line, dict) and {"custom_id", "response", "error"} <= line.keys()
    return line if whole and isinstance(line["response"] or {}, dict) else None


def _is_failure(line: dict[str, Any]) -> bool:
    return bool(line["error"]) or (line["response"] or {}).get("status_code") != 200


def _custom_id(raw: bytes) -> Any:
    try:
        return decode(raw, _Line).custom_id
    except APIError:
        return None if raw else ""  # "" never equals what an output line has
