"""Fields of a request that contradict each other, or that say nothing without another one.

Each is known and right by itself; taking one and dropping the other would be silent. It knows
OpenAI's words, as every interface is read into them.
"""

from __future__ import annotations

from typing import Any

from ggq.runtime.server.errors import APIError
from ggq.runtime.server.tools import choice_of

__all__ = ["refuse_conflicts", "unused"]

_SAME = (  # names of one thing each
    ("max_completion_tokens", "max_tokens", "n_predict"),
    ("repeat_penalty", "repetition_penalty"),
)


def refuse_conflicts(body: Any) -> None:
    """Raise APIError 400 where two fields of a request cannot both be followed."""
    demands = _demands(body)
    if len(demands) > 1:
        message = f"{demands[0]}: not together with {demands[1]}, give one of them"
        raise APIError(400, message, demands[0])
    if demands == ["grammar"] and choice_of(body).mode in ("required", "named"):
        message = "grammar: not together with a tool_choice that asks for a call"
        raise APIError(400, message, "grammar")
    for names in _SAME:
        given = [n for n in names if getattr(body, n, None) is not None]
        if len({getattr(body, n) for n in given}) > 1:
            raise APIError(400, f"{given[1]}: {given[0]} says another number", given[1])
    if getattr(body, "top_logprobs", None) and not body.logprobs:
        raise APIError(400, "top_logprobs: needs logprobs to be true", "top_logprobs")
    older = getattr(body, "function_call", None)
    if older not in (None, "none", "auto") and not body.functions:
        raise APIError(400, "function_call: there are no functions", "function_call")


def unused(body: Any) -> list[str]:
    """Return a note on each field that says nothing without another one."""
    if body.stream_options is not None and not body.stream:
        return ["without effect: stream_options, as stream is not true"]
    return []


def _demands(body: Any) -> list[str]:
    """Return the fields of a request that each demand a form of the whole answer."""
    form = body.response_format or {}
    asked = {
        "grammar": bool(body.grammar),
        "json_schema": body.json_schema is not None,
        "response_format": form.get("type", "text") != "text",
    }
    return [name for name, is_asked in asked.items() if is_asked]
