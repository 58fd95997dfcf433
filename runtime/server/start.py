"""From an opened model to a server that listens."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import Any

from ggq.errors import UsageError
from ggq.runtime.batching.savings import Savings
from ggq.runtime.batching.scheduler import Scheduler
from ggq.runtime.cache.layout import PAGE
from ggq.runtime.server.app import create_app
from ggq.runtime.server.hosting.base import Host

__all__ = ["LOOPBACK", "make_scheduler", "serve"]

LOOPBACK = ("127.0.0.1", "localhost", "::1")
_MAX_CONNECTIONS = 1024  # more get 503 at once
_SWITCH_SECONDS = 0.001  # how long the network's thread may hold up the engine's between two tokens


def make_scheduler(model: Any, *, n_slots: int = 4, max_waiting: int = 64) -> Scheduler:
    """Return a scheduler with room for ``n_slots`` answers of the model's context each.

    The cache is allocated for all of them: call it before anything else evaluates tokens.
    """
    if "engine" in model.__dict__:
        raise UsageError("the model's cache is already allocated")
    per_answer = model.n_ctx
    model.n_ctx = -(-per_answer // PAGE) * PAGE * n_slots
    if model.draft_model is not None:
        model.draft_model.n_ctx = model.n_ctx
    return Scheduler(
        model.engine,
        model.tokenizer,
        n_slots=n_slots,
        n_ctx=per_answer,
        max_waiting=max_waiting,
        savings=Savings(model.speculation, model.disk),
    )


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
        timeout_graceful_shutdown=3,
    )

    class Server(uvicorn.Server):
        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            if self.started:
                ready(_url(self.servers[0].sockets[0].getsockname()))

    try:
        Server(config).run()
    except SystemExit:  # how uvicorn says that it could not listen
        raise UsageError(f"cannot listen on {host}:{port}: is it in use?") from None


def _url(name: Any) -> str:
    host, port = name[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
