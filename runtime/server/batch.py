"""OpenAI's batch lines answered without a network: in order, several at once, resumable.

An output line is written when it and all before it are done, so a killed run goes on where it was.
The same input gives the same bytes: ids are made of the line, times and what depends on the
neighbours stay out.
"""

from __future__ import annotations

import asyncio
import hashlib
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
from ggq.runtime.server.service import Service
from ggq.runtime.server.streaming import reported

__all__ = [
    "answer_line",
    "answer_of",
    "custom_id_of",
    "is_failure",
    "lines_of",
    "output_line",
    "resume",
    "run_batch",
    "written_at",
]

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
    done, failed = resume(source, out)
    created = written_at(source)
    progress(done)
    window: asyncio.Queue[asyncio.Task[dict[str, Any]] | None] = asyncio.Queue(
        _AHEAD * service.scheduler.n_slots
    )

    async def feed() -> None:
        for number, raw in enumerate(lines_of(source)):
            if number >= done:
                answer = answer_line(service, raw, number, created)
                await window.put(asyncio.create_task(answer))
        await window.put(None)

    feeding = asyncio.create_task(feed())
    task = None
    try:
        with out.open("ab") as file:
            while (task := await window.get()) is not None:
                line = await task
                failed += is_failure(line)
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


async def answer_line(
    service: Service, raw: bytes, number: int, created: int = 0
) -> dict[str, Any]:
    """Return the output line of input line ``number``; ``created``: what bodies say of the time."""
    custom_id, status, error = None, 200, None
    try:
        line = decode(raw, _Line)
        custom_id = line.custom_id
        if line.method != "POST" or line.url not in _ENDPOINTS:
            raise APIError(400, f"url: {line.method} {line.url} is not served in batches", "url")
        kind, answer = _ENDPOINTS[line.url]
        body = await answer(service, decode(bytes(line.body), kind), "batch")
        body = _steady(body, _token(raw, number), created)
    except Exception as problem:
        found = reported(problem)
        status, body = found.status, found.body()
        if custom_id is None:
            error = {"code": "invalid_line", "message": found.message}
    return output_line(raw, number, custom_id, (status, body), error)


def output_line(
    raw: bytes, number: int, custom_id: Any, answer: tuple[int, Any], error: Any = None
) -> dict[str, Any]:
    """Return an output line of an answer's status and body, or of an error of the line itself."""
    token = _token(raw, number)
    response = {"status_code": answer[0], "request_id": f"req_{token}", "body": answer[1]}
    return {
        "id": f"batch_req_{token}",
        "custom_id": custom_id,
        "response": None if error else response,
        "error": error,
    }


def _token(raw: bytes, number: int) -> str:
    """Return what the ids of a line's answer end in."""
    return hashlib.sha256(b"%d:" % number + raw.strip()).hexdigest()[:24]


def _steady(body: Any, token: str, created: int) -> Any:
    """Take out of an answer what differs from run to run: ids, times, luck with neighbours."""
    if not isinstance(body, dict):
        return body
    body.pop("timings", None)
    if "created" in body:
        body["created"] = created
    if isinstance(body.get("id"), str):
        body["id"] = body["id"].rpartition("-")[0] + "-" + token
    for name in ("prompt_tokens_details", "completion_tokens_details"):
        body.get("usage", {}).pop(name, None)
    calls = [
        call
        for choice in body.get("choices", ())
        for call in (choice.get("message") or {}).get("tool_calls", ())
    ]
    for i, call in enumerate(calls):
        call["id"] = "call_" + hashlib.sha256(f"{token}:{i}".encode()).hexdigest()[:9]
    return body


def written_at(source: Path) -> int:
    """Return the time that answers give as their own: when their input was written."""
    try:
        return int(source.stat().st_mtime)
    except OSError as error:
        raise UsageError(f"{printable(source)}: {error.strerror}") from None


def lines_of(source: Path) -> Iterator[bytes]:
    """Yield the lines that are not empty."""
    try:
        with source.open("rb") as file:
            yield from (line for line in file if line.strip())
    except OSError as error:
        raise UsageError(f"{printable(source)}: {error.strerror}") from None


def resume(source: Path, out: Path) -> tuple[int, int]:
    """Cut half a line off ``out``; return how many lines are done, and how many of them failed.

    UsageError where ``out`` holds anything else than answers: it is left as it is.
    """
    if not out.exists():
        next(lines_of(source), None)  # says so if there is no input
        return 0, 0
    done = failed = size = 0
    inputs = lines_of(source)
    with out.open("rb") as file:
        for raw in file:
            if not raw.endswith(b"\n") and (raw[: len(_START)] == _START[: len(raw)]):
                break  # a killed run's last line
            line = answer_of(raw)
            if line is None:
                message = f"{printable(out)}: line {done + 1} is no answer of a batch"
                raise UsageError(f"{message}; name another file or delete it")
            if line.get("custom_id") != custom_id_of(next(inputs, b"")):
                message = f"{printable(out)}: line {done + 1} answers another input"
                raise UsageError(f"{message}; name another file or delete it")
            done, failed, size = done + 1, failed + is_failure(line), size + len(raw)
    os.truncate(out, size)
    return done, failed


def answer_of(raw: bytes) -> dict[str, Any] | None:
    """Return an output line's object, None where it is none."""
    try:
        line = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    whole = isinstance(line, dict) and {"custom_id", "response", "error"} <= line.keys()
    return line if whole and isinstance(line["response"] or {}, dict) else None


def is_failure(line: dict[str, Any]) -> bool:
    """Tell whether an output line says an error."""
    return bool(line["error"]) or (line["response"] or {}).get("status_code") != 200


def custom_id_of(raw: bytes) -> Any:
    """Return what the answer to an input line has as custom_id."""
    try:
        return decode(raw, _Line).custom_id
    except APIError:
        return None if raw else ""  # "" never equals what an output line has
