"""A conversation with a model that a server runs, over OpenAI's interface; needs no package."""

from __future__ import annotations

import dataclasses
import json
import time
import urllib.error
import urllib.request
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Any

from ggq.errors import UsageError, printable, reason
from ggq.runtime.generation.answer import Piece
from ggq.runtime.generation.conversation import Conversation
from ggq.runtime.generation.generation import Options, Stats
from ggq.runtime.sampling import SamplingParams

__all__ = ["RemoteConversation"]

_SECONDS = 600  # without a word from the server: long prompts take their time


class RemoteConversation(Conversation):
    """Messages kept here, answers from the server at ``url``; a session is not needed."""

    def __init__(
        self,
        url: str,
        key: str | None = None,
        system: str | None = None,
        template_options: Mapping[str, Any] | None = None,
    ) -> None:
        """Take the server's address, with or without /v1, and its API key."""
        super().__init__(None, None, None, system, template_options)  # type: ignore[arg-type]
        base = url.rstrip("/").removesuffix("/v1")
        if not base.startswith(("http://", "https://")):
            raise UsageError(f"{printable(url)}: a server's address begins with http://")
        self._url, self._key = f"{base}/v1/chat/completions", key

    def answer(
        self,
        params: SamplingParams | None = None,
        max_tokens: int | None = None,
        stop: Sequence[str] = (),
        options: Options | None = None,
    ) -> Generator[Piece, None, None]:
        """Yield the assistant's answer to the messages and append it, even if broken off."""
        body = {
            "messages": self.messages,
            "stream": True,
            "stream_options": {"include_usage": True},
            "chat_template_kwargs": self.template_options or None,
            **_changed(params or SamplingParams()),
        }
        if max_tokens is not None:
            body["max_tokens"] = max_tokens
        if stop:
            body["stop"] = list(stop)
        started = time.perf_counter()
        reply = self._open({name: value for name, value in body.items() if value is not None})
        return self._pieces(reply, (options or Options()).stats, started)

    def _open(self, body: dict[str, Any]) -> Any:
        headers = {"content-type": "application/json"}
        if self._key:
            headers["authorization"] = f"Bearer {self._key}"
        data = json.dumps(body).encode()
        request = urllib.request.Request(self._url, data, headers)
        try:
            return urllib.request.urlopen(request, timeout=_SECONDS)
        except urllib.error.HTTPError as error:
            raise UsageError(_message(error.read(1 << 16), error.code)) from None
        except (OSError, ValueError) as error:
            cause = getattr(error, "reason", error)
            raise UsageError(f"{printable(self._url)}: {reason(cause)}") from None

    def _pieces(self, reply: Any, stats: Stats, started: float) -> Generator[Piece, None, None]:
        texts: list[str] = []
        first = 0.0
        try:
            for chunk in _events(reply):
                if usage := chunk.get("usage"):
                    _count(stats, usage)
                choice = next(iter(chunk.get("choices") or ()), None)
                if choice is None:
                    continue
                text = (choice.get("delta") or {}).get("content") or ""
                if text and not first:
                    first = time.perf_counter()
                    stats.prompt_seconds = first - started
                texts.append(text)
                yield Piece(text, None, choice.get("finish_reason"))
        finally:
            reply.close()  # tells the server to stop, if there is more
            stats.generation_seconds = time.perf_counter() - first if first else 0.0
            self.messages.append({"role": "assistant", "content": "".join(texts)})


def _changed(params: SamplingParams) -> dict[str, Any]:
    """Return the parameters that are not the defaults: the server knows its model's own."""
    default = SamplingParams()
    found = {
        spec.name: getattr(params, spec.name)
        for spec in dataclasses.fields(params)
        if getattr(params, spec.name) != getattr(default, spec.name)
    }
    names = {"sequence": "samplers", "dry_breakers": "dry_sequence_breakers"}
    if "logit_bias" in found:
        found["logit_bias"] = {str(k): max(v, -100.0) for k, v in found["logit_bias"].items()}
    return {names.get(name, name): value for name, value in found.items()}


def _events(reply: Any) -> Iterator[dict[str, Any]]:
    try:
        for line in reply:
            data = line.strip().removeprefix(b"data: ")
            if data == b"[DONE]":
                return
            if not line.startswith(b"data: "):
                continue
            chunk = json.loads(data)
            if "error" in chunk:
                raise UsageError(_message(data, 500))
            yield chunk
    except (OSError, ValueError) as error:
        raise UsageError(f"the server broke off: {reason(error)}") from None


def _message(body: bytes, status: int) -> str:
    try:
        text = json.loads(body)["error"]["message"]
    except (ValueError, KeyError, TypeError):
        text = body.decode("utf-8", "replace")[:200]
    return f"the server answers {status}: {printable(text, 600)}"


def _count(stats: Stats, usage: dict[str, Any]) -> None:
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    stats.prompt_tokens = usage.get("prompt_tokens", 0)
    stats.evaluated_tokens = stats.prompt_tokens - cached
    stats.generated_tokens = usage.get("completion_tokens", 0)
    details = usage.get("completion_tokens_details") or {}
    stats.accepted_tokens = details.get("accepted_prediction_tokens") or 0
    rejected = details.get("rejected_prediction_tokens") or 0
    stats.drafted_tokens = stats.accepted_tokens + rejected
