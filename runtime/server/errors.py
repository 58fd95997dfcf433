"""Errors as clients expect them: OpenAI's envelope, the right status, the field's name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ggq.errors import FormatError, GGQError, ModelError, printable
from ggq.runtime.batching.refusals import ClosedError, QueueFullError
from ggq.runtime.generation.generation import ContextError

__all__ = ["APIError", "api_error", "fields_named"]

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    501: "not_supported_error",
    503: "unavailable_error",
}
_FIELD = re.compile(r"(\w+)(?=[:\[.])")
_LIMIT = 600  # characters of a message: part of it may come from the client


def _usual(status: int) -> str:
    return "server_error" if status >= 500 else "invalid_request_error"


class APIError(Exception):
    """An answer other than success; ``param`` is the request's field at fault."""

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        **extra: Any,
    ) -> None:
        """Take the status, one line, the field and further members of the error object."""
        super().__init__(message)
        self.status, self.param, self.code = status, param, code
        self.message = printable(message, _LIMIT)
        self.type = extra.pop("type", _TYPES.get(status, _usual(status)))
        self.retry_after: int | None = extra.pop("retry_after", None)
        self.extra = extra

    def rename(self, names: Mapping[str, str]) -> None:
        """Name the field at fault otherwise: ``names`` are patterns of ours, and what they become.

        They are of what a message begins with.
        """
        for pattern, name in names.items():
            if match := re.match(pattern, self.message):
                self.message = match.expand(name) + self.message[match.end() :]
                self.param = self.message.partition(":")[0]
                return

    @property
    def headers(self) -> dict[str, str]:
        """HTTP headers that go with the error."""
        if self.status == 401:
            return {"www-authenticate": "Bearer"}
        return {} if self.retry_after is None else {"retry-after": str(self.retry_after)}

    def body(self) -> dict[str, Any]:
        """Return OpenAI's envelope."""
        error = {"message": self.message, "type": self.type, "param": self.param}
        return {"error": {**error, "code": self.code or self.status, **self.extra}}

    def ollama_body(self) -> dict[str, Any]:
        """Return Ollama's envelope."""
        return {"error": self.message}

    def anthropic_body(self) -> dict[str, Any]:
        """Return Anthropic's envelope."""
        known = {"server_error": "api_error", "unavailable_error": "overloaded_error"}
        kind = known.get(self.type, self.type)
        if self.status == 400:
            kind = "invalid_request_error"
        return {"type": "error", "error": {"type": kind, "message": self.message}}


@contextmanager
def fields_named(names: Mapping[str, str]) -> Iterator[None]:
    """Have errors inside name fields as another interface does; see APIError.rename."""
    try:
        yield
    except (APIError, GGQError) as error:
        found = api_error(error)
        found.rename(names)
        raise found from None


def api_error(error: Exception) -> APIError:
    """Return what a client is told about any exception; causes inside the server stay inside."""
    if isinstance(error, APIError):
        return error
    if isinstance(error, ContextError):
        return APIError(
            400,
            str(error),
            code="context_length_exceeded",
            type="exceed_context_size_error",
            n_prompt_tokens=error.n_prompt,
            n_ctx=error.n_ctx,
        )
    if isinstance(error, QueueFullError):
        return APIError(429, str(error), retry_after=error.retry_after)
    if isinstance(error, ClosedError):
        return APIError(503, str(error))
    if isinstance(error, ModelError):
        return APIError(500, str(error))
    if isinstance(error, (GGQError, FormatError)):
        field = _FIELD.match(str(error))
        return APIError(400, str(error), field.group(1) if field else None)
    return APIError(500, "an error inside the server; its log says more")
