"""From models to a server that listens."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import Any

from ggq.errors import UsageError
from ggq.runtime.server.app import create_app
from ggq.runtime.server.hosting.base import Host

__all__ = ["LOOPBACK", "serve"]

LOOPBACK = ("127.0.0.1", "localhost", "::1")
_GRACE = 1  # seconds for what is open to be told that it ends
_MAX_CONNECTIONS = 1024  # more get 503 at once
_SWITCH_SECONDS = 0.001  # how long the network's thread may hold up the engine's between two tokens


def serve(
    models: Host,
    address: tuple[str, int],
    ready: Callable[[str], None] = lambda url: None,
) -> None:
    """Listen until interrupted; ``ready`` is told the address once the port is open.

    Raises UsageError where the port cannot be had.
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
    )

    class Server(uvicorn.Server):
        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            if self.started:
                ready(_url(self.servers[0].sockets[0].getsockname()))

        async def shutdown(self, sockets: Any = None) -> None:
            models.stop()  # every open answer ends with an error that says why
            await super().shutdown(sockets)

    try:
        Server(config).run()
    except SystemExit:  # how uvicorn says that it could not listen
        raise UsageError(f"cannot listen on {host}:{port}: is it in use?") from None


def _url(name: Any) -> str:
    host, port = name[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
