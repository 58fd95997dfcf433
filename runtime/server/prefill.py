"""An answer that is to be continued: what it said so far, after the prompt for it.

As continue_final_message has it in transformers and vLLM: the last message is the assistant's, and
the model goes on where it ends, in its thoughts if it had not got beyond them.
"""

from __future__ import annotations

from typing import Any

from ggq.runtime.server.errors import APIError
from ggq.runtime.server.schema import ChatBody

__all__ = ["is_continued", "split_answer"]

_FIELD = "continue_final_message"


def is_continued(body: ChatBody) -> bool:
    """Tell whether the last message is an answer to go on with, as it is unless it is denied.

    So Anthropic's interface and llama.cpp's have it; OpenAI's says nothing of it.
    """
    if body.continue_final_message is not None:
        return body.continue_final_message
    last = body.messages[-1]
    open_end = last.role == "assistant" and not last.tool_calls and not last.function_call
    said = bool(last.content or last.reasoning_content) and len(body.messages) > 1
    return open_end and said and body.add_generation_prompt


def split_answer(
    messages: list[dict[str, Any]], calls: Any
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return the messages before the answer that is to be continued, and that answer.

    ``calls``: the tool calls that it holds, if any.
    """
    *before, last = messages
    if last["role"] != "assistant" or not before:
        raise APIError(400, f"{_FIELD}: the last message must be the assistant's", _FIELD)
    if calls:
        raise APIError(400, f"{_FIELD}: tool calls cannot be continued", _FIELD)
    return before, last
