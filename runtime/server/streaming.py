"""Server-sent events with pings while nothing is ready; work ends when the client goes away."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from ggq.runtime.server.errors import APIError, api_error

__all__ = ["ClientGone", "EventStream", "data", "event", "failure", "reported", "while_connected"]

log = logging.getLogger("ggq.server")
T = TypeVar("T")


class ClientGone(Exception):
    """The client has closed its connection."""


def data(value: Any) -> bytes:
    """Return an event of OpenAI's kind."""
    return b"data: " + msgspec.json.encode(value) + b"\n\n"


def event(value: dict[str, Any]) -> bytes:
    """Return a named event; the name is the value's type."""
    found: bytes = b"event: " + value["type"].encode() + b"\n" + data(value)
    return found


def reported(error: Exception) -> APIError:
    """Return what a client is told about an error; the log is told what is our own fault."""
    found = api_error(error)
    if found.status >= 500 and not isinstance(error, APIError):
        log.error("a request failed", exc_info=error)
    return found


def failure(error: Exception) -> bytes:
    """Return the last event of a stream that fails, in OpenAI's form."""
    return data(reported(error).body())


class EventStream(Response):
    """Sends what an iterator yields; ``close`` is called at the end, however it comes."""

    media_type, ping = "text/event-stream", b": ping\n\n"

    def __init__(
        self,
        chunks: AsyncIterator[bytes],
        close: Callable[[], None],
        ping_seconds: float,
        failed: Callable[[Exception], bytes] = failure,
    ) -> None:
        """Take the encoded events; ``failed`` encodes the error that ends them."""
        self._chunks, self._close, self._ping_seconds = chunks, close, ping_seconds
        self._failed = failed
        self.status_code, self.background = 200, None
        self.init_headers({"cache-control": "no-cache", "x-accel-buffering": "no"})

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Send the events until they end or the client goes away."""
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        sending = asyncio.ensure_future(self._send(start, send))
        gone = asyncio.ensure_future(_disconnected(receive))
        try:
            await asyncio.wait({sending, gone}, return_when=asyncio.FIRST_COMPLETED)
            error = sending.exception() if sending.done() else None
            if error is not None and not isinstance(error, OSError):
                raise error
        finally:
            self._close()
            for task in (sending, gone):
                task.cancel()
            await asyncio.gather(sending, gone, return_exceptions=True)

    async def _send(self, start: Any, send: Any) -> None:
        await send(start)
        body = {"type": "http.response.body", "more_body": True}
        following = None
        try:
            while True:
                following = following or asyncio.ensure_future(anext(self._chunks, None))
                await asyncio.wait({following}, timeout=self._ping_seconds)
                if not following.done():
                    if self.ping:
                        await send({**body, "body": self.ping})
                    continue
                try:
                    chunk, following = following.result(), None
                except Exception as error:
                    following = None
                    await send({**body, "body": self._failed(error)})
                    break
                if chunk is None:
                    break
                await send({**body, "body": chunk})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            if following is not None:
                following.cancel()
                await asyncio.gather(following, return_exceptions=True)


async def while_connected(request: Request, work: Awaitable[T]) -> T:
    """Return the result of ``work``; cancel it and raise ClientGone when the client goes away."""
    working = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(request.receive))
    try:
        await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientGone
        return working.result()
    finally:
        for task in (working, gone):
            task.cancel()
        await asyncio.gather(working, gone, return_exceptions=True)


async def _disconnected(receive: Any) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
