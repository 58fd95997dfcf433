"""Bodies of Ollama's requests, and what of them is a chat request of ours."""

from __future__ import annotations

import re
from datetime import datetime, timezone
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from starlette.requests import Request

from ggq.errors import UsageError
from ggq.runtime.server.errors import APIError
from ggq.runtime.server.hosting.durations import parse_duration
from ggq.runtime.server.http import host_of, note, service_of
from ggq.runtime.server.schema import ChatBody, Message, SamplingNumbers, Stop
from ggq.runtime.server.service import Service

__all__ = [
    "ChatRequest",
    "EmbedRequest",
    "EmbeddingsRequest",
    "GenerateRequest",
    "NameRequest",
    "asked_for",
    "chat_body",
    "keep_of",
    "timestamp",
]

_EFFORTS = ("low", "medium", "high", "max")
_AT = re.compile(r" - at `\$\.?(.*)`$")
KeepAlive = str | int | float | None
Think = bool | str | None


class _Named(msgspec.Struct, kw_only=True):
    """What every request says."""

    model: Annotated[str, Meta(min_length=1, max_length=512)]
    keep_alive: KeepAlive = None
    options: dict[str, Any] | None = None


class OllamaMessage(msgspec.Struct):
    """One message of a conversation."""

    role: Annotated[str, Meta(min_length=1, max_length=64)]
    content: str | None = None
    thinking: str | None = None
    images: list[Any] | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None
    name: str | None = None  # an older word for tool_name


class _Generating(_Named, kw_only=True):
    """Fields of the requests that generate."""

    stream: bool | None = None
    format: str | dict[str, Any] | None = None
    think: Think = None
    truncate: bool | None = None
    shift: bool | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None


class ChatRequest(_Generating, kw_only=True):
    """POST /api/chat."""

    messages: Annotated[list[OllamaMessage], Meta(max_length=100_000)] = []
    tools: Annotated[list[dict[str, Any]], Meta(max_length=512)] | None = None


class GenerateRequest(_Generating, kw_only=True):
    """POST /api/generate."""

    prompt: str = ""
    suffix: str | None = None
    system: str | None = None
    template: str | None = None
    context: list[int] | None = None
    images: list[Any] | None = None
    raw: bool | None = None


class EmbedRequest(_Named, kw_only=True):
    """POST /api/embed."""

    input: str | Annotated[list[str], Meta(max_length=2048)] = ""
    truncate: bool | None = None
    dimensions: Annotated[int, Meta(ge=1, le=1 << 20)] | None = None


class EmbeddingsRequest(_Named, kw_only=True):
    """POST /api/embeddings, the older form of /api/embed."""

    prompt: str = ""


class NameRequest(msgspec.Struct, kw_only=True):
    """POST /api/show and /api/pull; ``name``: an older word for ``model``."""

    model: str | None = None
    name: str | None = None
    verbose: bool | None = None
    insecure: bool | None = None
    stream: bool | None = None

    @property
    def wanted(self) -> str:
        """The model's name; APIError where there is none."""
        found = self.model or self.name
        if not found:
            raise APIError(400, "model: missing, it is required", "model")
        return found


class Options(SamplingNumbers, kw_only=True):
    """What of ``options`` has an effect: sampling as everywhere, and these."""

    seed: int | None = None
    stop: Stop = None
    num_predict: int | None = None
    num_ctx: int | None = None
    logit_bias: dict[str, Annotated[float, Meta(ge=-100, le=100)]] | None = None


def timestamp(seconds: float | None = None) -> str:
    """Return a time, or now, as Ollama writes it (RFC 3339)."""
    zone = timezone.utc
    found = datetime.now(zone) if seconds is None else datetime.fromtimestamp(seconds, zone)
    return found.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def keep_of(request: Request, keep_alive: KeepAlive) -> float | None:
    """Return the seconds that a model is to stay, None where the request does not say."""
    if keep_alive is None or keep_alive == "":
        return None
    try:
        seconds = parse_duration(keep_alive)
    except UsageError as error:
        raise APIError(400, f"keep_alive: {error}", "keep_alive") from None
    if not host_of(request).many:
        note(request, "without effect: keep_alive: this server's one model stays")
    return seconds


async def asked_for(request: Request, body: _Named) -> Service:
    """Return the model that a request names, kept as it says."""
    return await service_of(request, body.model, keep_of(request, body.keep_alive))


def chat_body(
    request: Request, service: Service, body: _Generating, messages: list[OllamaMessage]
) -> ChatBody:
    """Return the chat request that asks for the same."""
    options = _options(request, service, body.options)
    numbers = {n: getattr(options, n) for n in SamplingNumbers.__struct_fields__}
    if body.shift:
        note(request, "without effect: shift: an answer ends where the context does")
    thinking: dict[str, Any] = {}
    effort = None
    if isinstance(body.think, bool):
        thinking = {"enable_thinking": body.think}
    elif body.think:
        if body.think not in _EFFORTS:
            raise APIError(400, f"think: expected true, false or {', '.join(_EFFORTS)}", "think")
        thinking, effort = {"enable_thinking": True}, body.think
    predict = options.num_predict
    return ChatBody(
        messages=[_message(message) for message in messages],
        model=body.model,
        max_tokens=None if predict is None else max(predict, -1),
        seed=options.seed,
        stop=options.stop,
        logit_bias=options.logit_bias,
        response_format=_format(body.format),
        tools=getattr(body, "tools", None) or None,
        chat_template_kwargs=thinking or None,
        reasoning_effort=effort,
        truncation="auto" if body.truncate else None,
        logprobs=body.logprobs,
        top_logprobs=body.top_logprobs,
        **numbers,
    )


def _options(request: Request, service: Service, given: dict[str, Any] | None) -> Options:
    given = {name: value for name, value in (given or {}).items() if value is not None}
    unknown = sorted(given.keys() - set(Options.__struct_fields__))
    if unknown:
        note(request, f"without effect: {', '.join(f'options.{name}' for name in unknown)}")
    try:
        options = msgspec.convert(given, Options)
    except msgspec.ValidationError as error:
        text, field = str(error), "options"
        if match := _AT.search(text):
            field, text = f"options.{match.group(1)}", text[: match.start()]
        raise APIError(400, f"{field}: {text[:1].lower()}{text[1:]}", field) from None
    if options.num_predict == 0:
        message = "options.num_predict: 0 is no number of tokens from 1, or -1 for no limit"
        raise APIError(400, message, "options")
    n_ctx = service.scheduler.n_ctx
    if options.num_ctx is not None and options.num_ctx > n_ctx:
        note(request, f"options.num_ctx: the server was started for {n_ctx} tokens (--ctx)")
    return options


def _format(given: str | dict[str, Any] | None) -> dict[str, Any] | None:
    if not given:
        return None
    if isinstance(given, dict):
        return {"type": "json_schema", "json_schema": {"schema": given}}
    if given != "json":
        raise APIError(400, 'format: expected "json" or a JSON schema', "format")
    return {"type": "json_object"}


def _message(message: OllamaMessage) -> Message:
    content: Any = message.content or ""
    if message.images:
        found = [{"type": "image", "source": {"type": "base64", "data": i}} for i in message.images]
        content = [*found, content] if content else found
    return Message(
        message.role,
        content,
        name=message.tool_name or message.name,
        tool_calls=message.tool_calls,
        tool_call_id=message.tool_call_id,
        reasoning_content=message.thinking,
    )
