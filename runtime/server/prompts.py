"""A chat request's messages and tools to what the model's template takes, and to token ids.

Checks what templates would stumble over; tools for templates that know none are explained in the
system message. It knows no HTTP.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from ggq.runtime.formats.base import Format
from ggq.runtime.generation.conversation import encode_segments
from ggq.runtime.pictures.gallery import Gallery
from ggq.runtime.pictures.parts import Fetch
from ggq.runtime.pictures.rendering import rendered
from ggq.runtime.server.contents import content_of, opened
from ggq.runtime.server.errors import APIError
from ggq.runtime.server.prefill import is_continued, split_answer
from ggq.runtime.server.schema import ChatBody, Message
from ggq.runtime.server.telling import Telling
from ggq.runtime.server.tools import choice_of, functions_of

__all__ = ["Prompt", "Prompter", "reserved"]

_NOTHING: Mapping[str, Any] = MappingProxyType({})
_RESERVED = {"self", "messages", "tools", "add_generation_prompt"}


class Prompt(msgspec.Struct):
    """Token ids, whether the model's thoughts are open at their end, and whether its answer is."""

    ids: list[int]
    text: str
    thinking: bool = False
    continued: bool = False
    begun: str = ""  # what of the answer's content is there


class Prompter:
    """Writes prompts with one model's template."""

    def __init__(
        self,
        template: Any,
        tokenizer: Any,
        form: Format,
        given: Mapping[str, Any] = _NOTHING,
        gallery: Gallery | None = None,
        fetch: Fetch | None = None,
    ) -> None:
        """Take the template and its variables of requests that do not set them.

        ``gallery``: what looks at pictures, None for a model that cannot; ``fetch``: what gets
        those that are URLs, where that is allowed.
        """
        self._gallery, self._fetch = gallery, fetch
        self._template, self._tokenizer, self._form = template, tokenizer, form
        self._given = given
        self._telling = Telling(template, form)
        sources = [template.source, *template.variants.values()]
        self._knows_developer = any("developer" in source for source in sources)

    @property
    def abilities(self) -> dict[str, bool]:
        """What the template writes by itself, under llama-server's names."""
        telling = self._telling
        return {"supports_tools": telling.by_template, "supports_tool_calls": telling.knows_calls}

    def render(self, body: ChatBody, check: Callable[[str], None] = lambda text: None) -> Prompt:
        """Return the prompt of a request; APIError or GGQError where there is none.

        ``check`` sees the text before it is made into tokens, and may refuse it.
        """
        variables = self._variables(body)
        tools = functions_of(body) if choice_of(body).mode != "none" else []
        messages = [self._message(m, i) for i, m in enumerate(body.messages)]
        messages, given = self._telling.tools(messages, tools)
        begun = None
        if is_continued(body):
            messages, begun = split_answer(messages, body.messages[-1].tool_calls)
        segments = rendered(
            self._template,
            messages,
            self._gallery,
            tools=given,
            add_generation_prompt=body.add_generation_prompt or begun is not None,
            **variables,
        )
        text = "".join(segment.text for segment in segments)
        thinking = self._form.opens(text)
        if begun is not None:
            said, thoughts = begun["content"], begun.get("reasoning_content") or ""
            added, thinking = self._form.begun(said, thoughts, text, thinking)
            segments = [*segments, *added]
            text += "".join(segment.text for segment in added)
        check(text)
        ids = encode_segments(self._tokenizer, segments)
        content = "" if begun is None else begun["content"]
        return Prompt(ids, text, thinking, begun is not None, content)

    def _variables(self, body: ChatBody) -> dict[str, Any]:
        field = "chat_template_kwargs"
        variables = dict(body.chat_template_kwargs or {})
        if name := reserved(variables):
            raise APIError(400, f"{field}: {name} cannot be set", field)
        if body.thinking_budget_tokens == 0:
            variables.setdefault("enable_thinking", False)
        if body.reasoning_effort is not None:
            variables.setdefault("reasoning_effort", body.reasoning_effort)
            if body.reasoning_effort == "none":
                variables.setdefault("enable_thinking", False)
        return {**self._given, **variables}

    def _message(self, message: Message, at: int) -> dict[str, Any]:
        where = f"messages[{at}]"
        role = "tool" if message.role == "function" else message.role
        if role == "developer" and not self._knows_developer:
            role = "system"
        said = message.refusal if message.content is None else message.content
        content: Any = content_of(said, f"{where}.content")
        if isinstance(content, list):
            content = opened(content, f"{where}.content", role, self._gallery, self._fetch)
        out: dict[str, Any] = {"role": role, "content": content}
        if message.name is not None:
            out["name"] = message.name
        if message.tool_call_id is not None:
            out["tool_call_id"] = self._id(message.tool_call_id)
        if message.reasoning_content is not None:
            out["reasoning_content"] = message.reasoning_content
        older = [{"function": message.function_call}] if message.function_call is not None else []
        if message.tool_calls or older:
            given = [*(message.tool_calls or ()), *older]
            calls = [_call(c, f"{where}.tool_calls") for c in given]
            out["tool_calls"] = [{**c, "id": self._id(c["id"])} if "id" in c else c for c in calls]
        return self._telling.call(out)

    def _id(self, given: str) -> str:
        """Return a call's id as the template wants it."""
        return self._form.call_id(given)


def reserved(names: Iterable[str]) -> str | None:
    """Return the first of some variables of a template that nobody may set, None without any."""
    return next((n for n in names if n in _RESERVED or not n.isidentifier()), None)


def _call(call: dict[str, Any], where: str) -> dict[str, Any]:
    function = call.get("function")
    if call.get("type") == "custom" and isinstance(custom := call.get("custom"), dict):
        function = {"name": custom.get("name"), "arguments": {"input": custom.get("input", "")}}
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise APIError(400, f"{where}: expected a function with a name", "messages")
    arguments = function.get("arguments", "{}")
    if not isinstance(arguments, (str, dict)):
        raise APIError(400, f"{where}: arguments must be JSON text", "messages")
    function = {"name": function["name"], "arguments": arguments or "{}"}
    out = {"type": "function", "function": function}
    return {**out, "id": call["id"]} if isinstance(call.get("id"), str) else out
