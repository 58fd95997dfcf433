"""Pictures of URLs, for servers that are told to fetch them: from public addresses, with limits.

The address that was checked is the one that is connected to, redirects included, so that a name
that changes its address leads nowhere else.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import time
from collections.abc import Callable
from urllib.parse import urljoin, urlsplit

from ggq.errors import UsageError, printable, reason
from ggq.runtime.pictures.opening import MOST_BYTES

__all__ = ["fetch"]

_SECONDS = 10.0  # for all of it
_REDIRECTS = 3
_CHUNK = 1 << 16
_PORTS = {"http": 80, "https": 443}


def fetch(url: str, public: Callable[[str], bool] | None = None) -> bytes:
    """Return the bytes at an http or https URL; UsageError in one line where there are none.

    ``public``: tells whether an address may be asked; unless given, one of the public internet.
    """
    until = time.monotonic() + _SECONDS
    name = printable(url, 60)
    try:
        for _ in range(1 + _REDIRECTS):
            found = _asked(url, until, public or _is_public)
            if isinstance(found, bytes):
                return found
            url = urljoin(url, found)
    except UsageError as error:
        raise UsageError(f"{name}: {error}") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        why = reason(error) if isinstance(error, OSError) else type(error).__name__
        raise UsageError(f"{name}: cannot be fetched: {why}") from None
    raise UsageError(f"{name}: leads on more than {_REDIRECTS} times")


def _is_public(address: str) -> bool:
    found = ipaddress.ip_address(address)
    mapped = getattr(found, "ipv4_mapped", None)
    return (mapped or found).is_global and not found.is_multicast


def _asked(url: str, until: float, public: Callable[[str], bool]) -> bytes | str:
    """Return what stands at a URL, or where it leads on to."""
    parts = urlsplit(url)
    if parts.scheme not in _PORTS or not parts.hostname:
        raise UsageError("is no http or https URL")
    port = parts.port or _PORTS[parts.scheme]
    known = socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
    address = str(known[0][4][0])
    if not all(public(str(one[4][0])) for one in known):
        raise UsageError("is not at a public address")
    raw = socket.create_connection((address, port), timeout=_left(until))
    try:
        if parts.scheme == "https":
            raw = ssl.create_default_context().wrap_socket(raw, server_hostname=parts.hostname)
        connection = http.client.HTTPConnection(parts.hostname, port)
        connection.sock = raw
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("GET", path, headers={"user-agent": "ggq", "accept": "image/*"})
        reply = connection.getresponse()
        if reply.status in (301, 302, 303, 307, 308):
            return reply.getheader("location") or ""
        if reply.status != 200:
            raise UsageError(f"the server there answers {reply.status}")
        return _read(reply, raw, until)
    finally:
        raw.close()


def _read(reply: http.client.HTTPResponse, raw: socket.socket, until: float) -> bytes:
    found, size = list[bytes](), 0
    while True:
        raw.settimeout(_left(until))
        piece = reply.read1(_CHUNK)
        if not piece:
            return b"".join(found)
        found.append(piece)
        size += len(piece)
        if size > MOST_BYTES:
            raise UsageError(f"has more than {MOST_BYTES >> 20} MiB")


def _left(until: float) -> float:
    left = until - time.monotonic()
    if left <= 0:
        raise UsageError(f"takes more than {_SECONDS:.0f} s")
    return left
