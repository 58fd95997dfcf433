"""What endpoints share: reading a body within its limit, JSON answers, whose request it is."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from typing import Any, TypeVar

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from ggq.runtime.server.errors import APIError
from ggq.runtime.server.hosting.base import Host
from ggq.runtime.server.schema import decode, unknown_fields
from ggq.runtime.server.service import Service
from ggq.runtime.server.streaming import ClientGone, while_connected

__all__ = [
    "NOTES_HEADER",
    "answer_json",
    "client_of",
    "give_back",
    "host_of",
    "note",
    "notes_of",
    "read",
    "request_members",
    "service_of",
]

NOTES_HEADER = "x-ggq-notes"  # what of a request has had no effect
_KEPT = "ggq.body"
_NOTES_LIMIT = 1000  # characters: clients choose some of them

T = TypeVar("T")


def host_of(request: Request) -> Host:
    """Return the server's models."""
    found: Host = request.app.state.host
    return found


async def service_of(
    request: Request, name: str | None = None, keep: float | None = None
) -> Service:
    """Return the model of a name, loaded where it was not, for as long as the request takes.

    ``keep``: seconds that it stays after that, None as usual.
    """
    host = host_of(request)
    service = await while_connected(request, host.use(name, keep))
    request.scope.setdefault("ggq.used", []).append(service)
    return service


def give_back(scope: MutableMapping[str, Any], host: Host) -> None:
    """End a request's use of models."""
    for service in scope.pop("ggq.used", ()):
        host.give_back(service)


def client_of(request: Request) -> str:
    """Return who asks, for fair queues: the key if there is one, else the address."""
    key = request.headers.get("authorization") or request.headers.get("x-api-key")
    return key or (request.client.host if request.client else "")


async def read(request: Request, kind: type[T]) -> T:
    """Return the body as ``kind``.

    APIError 413 if it is too large, 408 if it does not come, 400 if it does not fit.
    """
    body = await _received(request)
    found: T = decode(body, kind)
    unknown = unknown_fields(body, kind)
    if unknown:
        note(request, f"without effect: {', '.join(unknown)}")
    return found


async def request_members(request: Request) -> set[str]:
    """Return the names of a body's members, where what is asked for depends on them."""
    body = request.scope[_KEPT] = await _received(request)
    return set(decode(body, dict[str, msgspec.Raw]))


async def _received(request: Request) -> bytes:
    """Return the body, which comes once: `request_members` keeps it for whoever reads it then."""
    if (kept := request.scope.pop(_KEPT, None)) is not None:
        return bytes(kept)
    settings = host_of(request).settings
    try:
        return await asyncio.wait_for(_body(request, settings.max_body), settings.body_seconds)
    except asyncio.TimeoutError:
        raise APIError(408, "the body did not arrive in time") from None
    except ClientDisconnect:
        raise ClientGone from None


def note(request: Request, *texts: str) -> None:
    """Have the answer's headers say what of the request has had no effect."""
    request.scope.setdefault("ggq.notes", []).extend(texts)


def notes_of(scope: MutableMapping[str, Any]) -> str:
    """Return a request's notes as a header's value, "" where there are none."""
    text = "; ".join(scope.get("ggq.notes", ()))
    return "".join(c if " " <= c <= "~" else "?" for c in text)[:_NOTES_LIMIT]


async def _body(request: Request, limit: int) -> bytes:
    declared = request.headers.get("content-length", "0")
    too_large = APIError(413, f"the body is larger than {limit} bytes")
    if declared.isdigit() and int(declared) > limit:
        raise too_large
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > limit:
            raise too_large
        parts.append(part)
    return b"".join(parts)


def answer_json(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return a JSON answer."""
    content = msgspec.json.encode(value)
    return Response(content, status, headers, media_type="application/json")
