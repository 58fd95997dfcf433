"""The ASGI application: routes, keys, hosts and origins, errors in the client's own form."""

from __future__ import annotations

import logging
import re
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from ggq.runtime.server import adapters, info, lmstudio, native
from ggq.runtime.server.chat import chat_completions
from ggq.runtime.server.completions import completions
from ggq.runtime.server.embeddings import either_embeddings, embedding, embeddings
from ggq.runtime.server.errors import APIError
from ggq.runtime.server.hosting.base import Host
from ggq.runtime.server.http import NOTES_HEADER, answer_json, give_back, notes_of
from ggq.runtime.server.messages import count_tokens, messages
from ggq.runtime.server.metrics import Metrics
from ggq.runtime.server.ollama import routes as ollama
from ggq.runtime.server.page import routes as page
from ggq.runtime.server.rerank import rerank
from ggq.runtime.server.responses import responses
from ggq.runtime.server.settings import Settings
from ggq.runtime.server.streaming import ClientGone, reported

__all__ = ["create_app"]

log = logging.getLogger("ggq.server")
_OPEN = ("/health", "/favicon.ico", *page.OPEN)  # without a key
_HEADER_NAMES = re.compile(r"[A-Za-z0-9\-]+(, ?[A-Za-z0-9\-]+){0,63}")
_OLLAMA = frozenset(path for _, path in ollama.ROUTES)
_CLOSED_STATUS = 499  # for the log only: the client went away

_ROUTES = {
    **page.ROUTES,
    **ollama.ROUTES,
    ("GET", "/health"): info.health,
    ("GET", "/v1/health"): info.health,
    ("GET", "/v1/models"): info.models,
    ("GET", "/models"): info.models,
    ("GET", "/v1/models/{name:path}"): info.model,
    ("POST", "/models/load"): info.load,
    ("POST", "/models/unload"): info.unload,
    ("GET", "/props"): info.props,
    ("GET", "/lora-adapters"): adapters.show_adapters,
    ("POST", "/lora-adapters"): adapters.change_adapters,
    ("GET", "/slots"): native.slots,
    ("POST", "/completion"): native.completion,
    ("POST", "/completions"): native.completion,
    ("POST", "/infill"): native.infill,
    ("POST", "/tokenize"): info.tokenize,
    ("POST", "/detokenize"): info.detokenize,
    ("POST", "/apply-template"): info.apply_template,
    ("POST", "/v1/chat/completions"): chat_completions,
    ("POST", "/chat/completions"): chat_completions,
    ("POST", "/v1/completions"): completions,
    ("POST", "/v1/responses"): responses,
    ("POST", "/v1/messages"): messages,
    ("POST", "/v1/messages/count_tokens"): count_tokens,
    ("POST", "/v1/embeddings"): embeddings,
    ("POST", "/embeddings"): either_embeddings,
    ("POST", "/embedding"): embedding,
    ("GET", "/api/v0/models"): lmstudio.models,
    ("GET", "/api/v0/models/{name:path}"): lmstudio.model,
    ("POST", "/api/v0/chat/completions"): lmstudio.chat,
    ("POST", "/api/v0/completions"): lmstudio.text,
    ("POST", "/api/v0/embeddings"): embeddings,
    ("POST", "/v1/rerank"): rerank,
    ("POST", "/v2/rerank"): rerank,
    ("POST", "/rerank"): rerank,
    ("POST", "/v1/reranking"): rerank,
    ("POST", "/reranking"): rerank,
}


def create_app(host: Host) -> Any:
    """Return the application; it starts the models' threads and ends them."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        host.start()
        yield
        host.close()

    metrics = Metrics(host)

    async def show_metrics(request: Request) -> Response:
        text, kind = metrics.text()
        return Response(text, headers={"content-type": kind})

    routes = {**_ROUTES, ("GET", "/metrics"): show_metrics}
    app = Starlette(
        routes=[Route(p, _guarded(do), methods=[method]) for (method, p), do in routes.items()],
        exception_handlers={HTTPException: _not_found},
        lifespan=lifespan,
    )
    app.state.host = host
    app.router.redirect_slashes = False
    app.add_middleware(_Gate, host=host, metrics=metrics)
    return app


async def _not_found(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    found = APIError(error.status_code, f"{error.detail}: {request.method} {request.url.path}")
    return _written(request, found)


def _guarded(endpoint: Any) -> Any:
    """Return the endpoint with its exceptions turned into answers."""

    async def guarded(request: Request) -> Response:
        try:
            found: Response = await endpoint(request)
            return found
        except ClientGone:
            return Response(status_code=_CLOSED_STATUS)
        except Exception as error:
            return _written(request, reported(error))

    return guarded


def _written(request: Request, error: APIError) -> Response:
    path = request.url.path
    if path.startswith("/v1/messages"):
        body = error.anthropic_body()
    elif path in _OLLAMA:
        body = error.ollama_body()
    else:
        body = error.body()
    return answer_json(body, error.status, error.headers)


class _Gate:
    """Lets requests in: hosts (against DNS rebinding), origins, keys; adds CORS headers; counts."""

    def __init__(self, app: Any, host: Host, metrics: Metrics):
        self._app, self._host, self._metrics = app, host, metrics
        self._settings: Settings = host.settings
        self._prefix = self._settings.prefix
        self._known = {path for _, path in _ROUTES}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), [0]
        headers = Headers(scope=scope)
        origin = headers.get("origin", "")
        allowed = self._origin_is_allowed(origin)

        async def reply(message: Any) -> None:
            if message["type"] == "http.response.start":
                status[0] = message["status"]
                if allowed:
                    out = MutableHeaders(scope=message)
                    out["access-control-allow-origin"] = origin
                    out["access-control-expose-headers"] = f"retry-after, {NOTES_HEADER}"
                    out.add_vary_header("origin")
                if notes := notes_of(scope):
                    MutableHeaders(scope=message)[NOTES_HEADER] = notes
            await send(message)

        scope, is_ours = self._without_prefix(scope)
        request = Request(scope)
        answer = self._refusal(request, headers, origin, allowed)
        if answer is None and not is_ours:
            answer = self._outside(request)
        try:
            if answer is None:
                await self._app(scope, receive, reply)
            else:
                await answer(scope, receive, reply)
        finally:
            give_back(scope, self._host)
            path = scope["path"] if scope["path"] in self._known else "other"
            seconds = time.perf_counter() - started
            self._metrics.count(path, status[0], seconds)
            log.info("%s %s %s %.3fs", scope["method"], path, status[0], seconds)

    def _without_prefix(self, scope: Any) -> tuple[Any, bool]:
        """Return a request's scope without the prefix of its path, and whether it had it."""
        path, start = scope["path"], f"{self._prefix}/"
        if not self._prefix:
            return scope, True
        if not path.startswith(start):
            return scope, False
        raw = scope.get("raw_path", b"")[len(self._prefix) :]
        return {**scope, "path": path[len(self._prefix) :], "raw_path": raw}, True

    def _outside(self, request: Request) -> Response:
        """Answer what lies outside of the prefix; its own name alone is the page's."""
        if request.url.path == self._prefix:
            return RedirectResponse(f"{self._prefix}/")
        return _written(request, APIError(404, f"Not Found: all is below {self._prefix}/"))

    def _origin_is_allowed(self, origin: str) -> bool:
        return bool(origin) and bool({"*", origin} & set(self._settings.origins))

    def _refusal(
        self, request: Request, headers: Headers, origin: str, allowed: bool
    ) -> Response | None:
        host = headers.get("host", "")
        name = urlsplit(f"//{host}").hostname if _is_plain(host) else None
        if self._settings.hosts and name not in self._settings.hosts:
            return _written(request, APIError(403, "this host name is not served (--allow-host)"))
        if request.method == "OPTIONS" and allowed:
            return _preflight(headers)
        if origin and not allowed and origin.partition("://")[2] != host:
            return _written(request, APIError(403, "this origin is not allowed (--cors-origin)"))
        if request.url.path not in _OPEN and not self._has_key(headers):
            return _written(request, APIError(401, "a valid API key is needed"))
        return None

    def _has_key(self, headers: Headers) -> bool:
        keys = self._settings.api_keys
        if not keys:
            return True
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            given = headers.get("x-api-key", "")
        raw = given.strip().encode("utf-8", "replace")
        # every key is compared, each in constant time
        return sum(secrets.compare_digest(raw, key.encode()) for key in keys) > 0


def _preflight(headers: Headers) -> Response:
    """Answer a browser that asks whether an allowed origin may send what it is about to send.

    SDKs send headers of their own (x-stainless-..., anthropic-...), more with each version: none of
    them means anything here but the keys, so whatever is asked for is allowed.
    """
    asked = headers.get("access-control-request-headers", "")
    names = asked if _HEADER_NAMES.fullmatch(asked) else "authorization, content-type, x-api-key"
    allowed = {
        "access-control-allow-methods": "GET, POST",
        "access-control-allow-headers": names,
        "access-control-max-age": "600",
    }
    if headers.get("access-control-request-private-network") == "true":
        allowed["access-control-allow-private-network"] = "true"
    return Response(status_code=204, headers=allowed)


def _is_plain(host: str) -> bool:
    return all(c.isalnum() or c in ".-:[]_" for c in host)
