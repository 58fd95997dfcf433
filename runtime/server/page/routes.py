"""The page's routes: its files under a strict policy, Markdown to HTML, PDF to text."""

from __future__ import annotations

import asyncio
import hashlib
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response

from ggq.runtime.server.errors import APIError
from ggq.runtime.server.http import answer_json, read
from ggq.runtime.server.page import markdown, pdftext

__all__ = ["FILES", "OPEN", "ROUTES"]

FILES = (
    "style.css", "log.css", "main.js", "chat.js", "composer.js", "dom.js", "files.js", "log.js",
    "menu.js", "message.js", "options.js", "rendering.js", "run.js", "server.js", "settings.js",
    "sidebar.js", "store.js", "tree.js",
)  # fmt: skip
_KINDS = {"html": "text/html", "css": "text/css", "js": "text/javascript"}
_HEADERS = {
    # Its own files and nothing else; HTML gets into the page through one function (dom.js).
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types ggq"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",  # kept, but asked for again: a newer ggq has newer files
}
_MAX_RENDERED = 1 << 18  # characters of a request
_PDF_SECONDS = 60
_one_pdf = threading.Lock()

Endpoint = Callable[[Request], Awaitable[Response]]


class RenderBody(msgspec.Struct):
    """POST /page/render: Markdown texts."""

    texts: Annotated[list[str], Meta(max_length=10_000)]


class PdfBody(msgspec.Struct):
    """POST /page/pdf: the file in base64."""

    data: bytes


@cache
def _file(name: str) -> tuple[bytes, str]:
    content = resources.files(__package__).joinpath(name).read_bytes()
    return content, f'"{hashlib.sha256(content).hexdigest()[:32]}"'


def _serving(name: str) -> Endpoint:
    async def answer(request: Request) -> Response:
        content, tag = _file(name)
        headers = {**_HEADERS, "etag": tag}
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(content, headers=headers, media_type=_KINDS[name.rpartition(".")[2]])

    return answer


async def render(request: Request) -> Response:
    """Answer POST /page/render: the blocks of each text as HTML, with the lines they begin in."""
    body = await read(request, RenderBody)
    if sum(map(len, body.texts)) > _MAX_RENDERED:
        raise APIError(413, f"texts: more than {_MAX_RENDERED} characters", "texts")
    blocks = await asyncio.to_thread(lambda: [markdown.render(text) for text in body.texts])
    return answer_json({"texts": [[b._asdict() for b in found] for found in blocks]})


async def pdf(request: Request) -> Response:
    """Answer POST /page/pdf: the text of a PDF and the number of its pages."""
    body = await read(request, PdfBody)
    return answer_json(await asyncio.to_thread(_read_pdf, body.data))


def _read_pdf(data: bytes) -> dict[str, Any]:
    if not _one_pdf.acquire(blocking=False):
        raise APIError(429, "another PDF is being read", retry_after=2)
    try:
        program = [sys.executable, "-I", str(Path(pdftext.__file__))]
        done = subprocess.run(program, input=data, capture_output=True, timeout=_PDF_SECONDS)
    except subprocess.TimeoutExpired:
        raise APIError(400, f"the PDF was not read within {_PDF_SECONDS} s", "data") from None
    finally:
        _one_pdf.release()
    if done.returncode:
        raise APIError(400, "the PDF cannot be read: it is too large or broken", "data")
    answer = msgspec.json.decode(done.stdout, type=dict[str, Any])
    if "error" in answer:
        raise APIError(400, answer["error"], "data")
    return answer


ROUTES: dict[tuple[str, str], Endpoint] = {
    ("GET", "/"): _serving("index.html"),
    **{("GET", f"/page/{name}"): _serving(name) for name in FILES},
    ("POST", "/page/render"): render,
    ("POST", "/page/pdf"): pdf,
}
OPEN = tuple(path for method, path in ROUTES if method == "GET")  # without a key: they hold nothing
