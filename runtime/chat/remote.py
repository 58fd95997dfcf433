"""A conversation with a model that a server runs, over OpenAI's interface; needs no package."""

from __future__ import annotations

import dataclasses
import json
import time
import urllib.error
import urllib.request
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ggq.errors import UsageError, printable, reason
from ggq.runtime.generation.answer import Piece
from ggq.runtime.generation.conversation import Conversation, Prompt
from ggq.runtime.generation.generation import ContextError, Options, Stats
from ggq.runtime.generation.messages import text_of
from ggq.runtime.generation.saved import with_urls
from ggq.runtime.sampling import SamplingParams

if TYPE_CHECKING:
    from ggq.runtime.grammar.asked import Asked

__all__ = ["RemoteConversation"]

_SECONDS = 600  # without a word from the server: long prompts take their time
_QUICK = 10  # for what it need not compute
_LARGEST = 1 << 24  # bytes of what it says about itself
_RATE = 0.3  # tokens per character, before the server has counted any
_MARKS = 16  # characters around a message


class RemoteConversation(Conversation):
    """Messages kept here, answers from the server at ``url``; a session is not needed."""

    counts = False
    model: str | None = None  # the server's own choice, unless it is told one

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
        self.url, self._key = base, key
        self._n_ctx: int | None = None
        self._asked = False
        self._rate = _RATE  # tokens per character

    def ask(self, asked: Asked) -> None:
        """Have the server hold all answers to a grammar or schema."""
        named = {"grammar": asked.grammar, "response_format": asked.response_format}
        self._demand = {name: value for name, value in named.items() if value is not None}

    @property
    def n_ctx(self) -> int | None:
        """The context of one answer, where the server says it."""
        if not self._asked:
            self._asked = True
            found = self.get("/props").get("n_ctx")
            self._n_ctx = found if isinstance(found, int) and found > 0 else None
        return self._n_ctx

    def count(self, messages: Sequence[dict[str, Any]] | None = None) -> int:
        """Return about how many tokens the prompt has: as many per character as the last one."""
        return round(self._rate * _characters(self.sent(messages)))

    def get(self, path: str) -> dict[str, Any]:
        """Return what the server answers to a GET; nothing where it does not know the path."""
        request = urllib.request.Request(self.url + path, headers=self._headers())
        try:
            with urllib.request.urlopen(request, timeout=_QUICK) as reply:
                found = json.loads(reply.read(_LARGEST))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def _answer(
        self,
        messages: list[dict[str, Any]],
        begun: dict[str, Any] | None,
        params: SamplingParams | None,
        max_tokens: int | None,
        stop: Sequence[str],
        options: Options,
    ) -> Generator[Piece, None, None]:
        """Yield an answer to ``messages``, or what follows the ``begun`` one, and keep it."""
        sent = self.sent(messages)
        body = {
            "model": self.model,
            "messages": with_urls([*sent, begun] if begun is not None else sent),
            "continue_final_message": True if begun is not None else None,
            "stream": True,
            "stream_options": {"include_usage": True},
            "chat_template_kwargs": self.template_options or None,
            **(self._demand or {}),
            **_changed(params or SamplingParams()),
        }
        if max_tokens is not None:
            body["max_tokens"] = max_tokens
        if stop:
            body["stop"] = list(stop)
        started = time.perf_counter()
        reply = self._open({name: value for name, value in body.items() if value is not None})
        prompt = Prompt("", [], begun)
        return self._told(reply, prompt, options.stats, started, _characters(sent))

    def _headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self._key}"} if self._key else {}

    def _open(self, body: dict[str, Any]) -> Any:
        headers = {"content-type": "application/json", **self._headers()}
        url = f"{self.url}/v1/chat/completions"
        request = urllib.request.Request(url, json.dumps(body).encode(), headers)
        try:
            return urllib.request.urlopen(request, timeout=_SECONDS)
        except urllib.error.HTTPError as error:
            raise _refused(error.read(1 << 16), error.code) from None
        except (OSError, ValueError) as error:
            cause = getattr(error, "reason", error)
            where = f"{printable(self.url)}: {reason(cause)}"
            raise UsageError(f"{where}: does ggq serve run there?") from None

    def _told(
        self, reply: Any, prompt: Prompt, stats: Stats, started: float, characters: int
    ) -> Generator[Piece, None, None]:
        said: list[Piece] = []
        first = 0.0
        try:
            for chunk in _events(reply):
                if usage := chunk.get("usage"):
                    _count(stats, usage)
                    self._rate = stats.prompt_tokens / max(characters, 1) or self._rate
                choice = next(iter(chunk.get("choices") or ()), None)
                if choice is None:
                    continue
                for piece in _pieces(choice):
                    if piece.text and not first:
                        first = time.perf_counter()
                        stats.prompt_seconds = first - started
                    said.append(piece)
                    yield piece
        finally:
            reply.close()  # tells the server to stop, if there is more
            stats.generation_seconds = time.perf_counter() - first if first else 0.0
            self._record(said, prompt, [])

    def _text(self, ids: list[int]) -> str:
        return ""


def _pieces(choice: dict[str, Any]) -> Iterator[Piece]:
    """Yield a chunk's thoughts, by either name that servers give them, and its text."""
    delta = choice.get("delta") or {}
    thought = delta.get("reasoning_content") or delta.get("reasoning")
    if isinstance(thought, str) and thought:
        yield Piece(thought, thought=True)
    yield Piece(delta.get("content") or "", None, choice.get("finish_reason"))


def _characters(messages: Sequence[dict[str, Any]]) -> int:
    return sum(len(text_of(m["content"])) + _MARKS for m in messages)


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
                raise _refused(data, 500)
            yield chunk
    except (OSError, ValueError) as error:
        raise UsageError(f"the server broke off: {reason(error)}") from None


def _refused(body: bytes, status: int) -> UsageError:
    """Return the error that a server's refusal is here."""
    try:
        error = json.loads(body)["error"]
        text = error["message"]
        numbers = error.get("n_prompt_tokens"), error.get("n_ctx")
        if all(isinstance(number, int) for number in numbers):
            return ContextError(*numbers)
    except (ValueError, KeyError, TypeError, AttributeError):
        text = body.decode("utf-8", "replace")[:200]
    return UsageError(f"the server answers {status}: {printable(text, 600)}")


def _count(stats: Stats, usage: dict[str, Any]) -> None:
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    stats.prompt_tokens = usage.get("prompt_tokens", 0)
    stats.evaluated_tokens = stats.prompt_tokens - cached
    stats.generated_tokens = usage.get("completion_tokens", 0)
    details = usage.get("completion_tokens_details") or {}
    stats.accepted_tokens = details.get("accepted_prediction_tokens") or 0
    rejected = details.get("rejected_prediction_tokens") or 0
    stats.drafted_tokens = stats.accepted_tokens + rejected
