"""From models to a server that listens."""

from __future__ import annotations

import errno
import logging
import socket
import ssl
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ggq.errors import UsageError, printable, reason
from ggq.runtime.server.app import create_app
from ggq.runtime.server.hosting.base import Host

__all__ = ["LOOPBACK", "check_address", "check_certificate", "serve"]

LOOPBACK = ("127.0.0.1", "localhost", "::1")
_GRACE = 1  # seconds for what is open to be told that it ends
_MAX_CONNECTIONS = 1024  # more get 503 at once
_SWITCH_SECONDS = 0.001  # how long the network's thread may hold up the engine's between two tokens


def serve(
    models: Host,
    address: tuple[str, int],
    ready: Callable[[str], None] = lambda url: None,
    certificate: tuple[Path, Path] | None = None,
) -> None:
    """Listen until interrupted; ``ready`` is told the address once the port is open.

    ``certificate``: files of a certificate and its key, for https. Raises UsageError where the port
    cannot be had.
    """
    import uvicorn

    sys.setswitchinterval(_SWITCH_SECONDS)
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    host, port = address
    config = uvicorn.Config(
        create_app(models),
        host=host,
        port=port,
        log_config=None,
        access_log=False,
        server_header=False,
        limit_concurrency=_MAX_CONNECTIONS,
        timeout_graceful_shutdown=_GRACE,
        ssl_certfile=certificate and certificate[0],
        ssl_keyfile=certificate and str(certificate[1]),
    )
    scheme = "https" if certificate else "http"

    class Server(uvicorn.Server):
        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            if self.started:
                place = _place(self.servers[0].sockets[0].getsockname())
                ready(f"{scheme}://{place}{models.settings.prefix}")

        async def shutdown(self, sockets: Any = None) -> None:
            models.stop()  # every open answer ends with an error that says why
            await super().shutdown(sockets)

    try:
        Server(config).run()
    except SystemExit:  # how uvicorn says that it could not listen
        raise UsageError(f"cannot listen on {host}:{port}: is it in use?") from None


def check_address(host: str, port: int) -> None:
    """Raise UsageError where nothing can listen there: asked before a model is loaded."""
    place = f"{printable(host)}:{port}"
    try:
        family, kind, _, _, name = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            if sys.platform != "win32":  # as the server does: a port that was just left is free
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(name)
    except (OSError, UnicodeError) as error:  # of names that are none
        busy = getattr(error, "errno", None) == errno.EADDRINUSE
        more = " (--port 0 takes a free one)" if busy else ""
        raise UsageError(f"cannot listen on {place}: {reason(error)}{more}") from None


def check_certificate(certificate: Path, key: Path) -> None:
    """Raise UsageError where two files are no certificate and its key."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    for flag, path in (("--ssl-cert", certificate), ("--ssl-key", key)):
        if not path.is_file():
            raise UsageError(f"{flag}: {printable(path)}: no such file")
    try:
        context.load_cert_chain(certificate, key, password=lambda: b"")
    except (ssl.SSLError, OSError) as error:
        names = f"{printable(certificate)} and {printable(key)}"
        message = f"{names} are no certificate and its key in PEM, without a passphrase"
        raise UsageError(f"--ssl-cert, --ssl-key: {message} ({reason(error)})") from None


def _place(name: Any) -> str:
    host, port = name[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
