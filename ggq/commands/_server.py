"""Asking a running server, for commands that show or change what it does."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

import click

from ggq.commands._types import Command
from ggq.errors import GGQError, printable, reason

_SECONDS = 30.0
_OPTIONS = (
    click.option("--server", default="http://127.0.0.1:8080", show_default=True, metavar="URL",
                 help="Where ggq serve listens."),
    click.option("--server-key", metavar="KEY", help="The server's API key."),
)  # fmt: skip


def server_options(function: Command) -> Command:
    """Decorate a command with --server and --server-key."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def asked(server: str, key: str | None, path: str, body: Any = None) -> Any:
    """Return the server's JSON answer to a GET, or to a POST of ``body``; GGQError in one line."""
    headers = {"content-type": "application/json"}
    if key:
        headers["authorization"] = f"Bearer {key}"
    data = None if body is None else json.dumps(body).encode()
    where = printable(server)
    try:
        request = urllib.request.Request(server.rstrip("/") + path, data, headers)
        with urllib.request.urlopen(request, timeout=_SECONDS) as reply:
            return json.loads(reply.read())
    except urllib.error.HTTPError as error:
        with error:
            raise GGQError(f"{where}: {printable(_told(error), 400)}") from None
    except urllib.error.URLError as error:
        why = error.reason
        shown = reason(why) if isinstance(why, OSError) else printable(why)
        raise GGQError(f"{where}: {shown}: does ggq serve run there?") from None
    except (OSError, ValueError) as error:
        shown = reason(error) if isinstance(error, OSError) else "no server of ggq answers there"
        raise GGQError(f"{where}: {shown}") from None


def _told(error: urllib.error.HTTPError) -> str:
    """Return what the server says of an error."""
    try:
        found = json.loads(error.read())["error"]
        return str(found["message"] if isinstance(found, dict) else found)
    except (ValueError, KeyError, TypeError):
        return f"status {error.code}"
