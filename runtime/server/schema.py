"""What requests may contain: types and ranges of every field, as msgspec structures.

Unknown fields are named in a header of the answer. Ranges of sampling parameters are not repeated
here: SamplingParams has them.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from msgspec import Meta

from ggq.runtime.sampling import SamplingParams
from ggq.runtime.server.errors import APIError
from ggq.runtime.server.settings import ReasoningFormat

__all__ = [
    "AdapterScale",
    "ChatBody",
    "CompletionBody",
    "EmbeddingBody",
    "Message",
    "RerankBody",
    "SamplingBody",
    "SamplingNumbers",
    "Stop",
    "decode",
]

_OWN = ("logit_bias", "sequence", "dry_breakers", "seed")
_NOTHING = (b"null", b"[]", b"{}", b'""')  # a client's words for "not said"
_AT = re.compile(r" - at `(?:key in )?\$?\.?(.*)`$")

Number = float | int | None
StopText = Annotated[str, Meta(min_length=1, max_length=512)]  # an empty one ends every answer
Stops = Annotated[list[StopText], Meta(max_length=256)]
Stop = StopText | Stops | None
Truncation = Literal["auto", "disabled"]
Tokens = Annotated[int, Meta(ge=-1, le=2**31 - 1)]
Ids = list[Annotated[int, Meta(ge=0, le=2**31 - 1)]]

# One field per sampling parameter: a new one in SamplingParams is accepted here without an edit.
if TYPE_CHECKING:

    class SamplingNumbers(msgspec.Struct, kw_only=True):
        """What type checkers are told of them."""

        temperature: Number = None
        top_k: Number = None
        top_p: Number = None
        repeat_penalty: Number = None

else:
    SamplingNumbers = msgspec.defstruct(
        "SamplingNumbers",
        [(f.name, Number, None) for f in dataclasses.fields(SamplingParams) if f.name not in _OWN],
        kw_only=True,
    )


class StreamOptions(msgspec.Struct):
    """OpenAI's stream_options."""

    include_usage: bool | None = None


class AdapterScale(msgspec.Struct, forbid_unknown_fields=True):
    """One adapter's scale, as llama-server's ``lora`` and /lora-adapters take it."""

    id: Annotated[int, Meta(ge=0, le=1000)]
    scale: Annotated[float, Meta(ge=-1e6, le=1e6)]


class SamplingBody(SamplingNumbers, kw_only=True):
    """Fields of every request that generates."""

    model: str | None = None
    n: Annotated[int, Meta(ge=1, le=16)] | None = None
    max_tokens: Tokens | None = None
    seed: int | None = None
    stop: Stop = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    logit_bias: dict[str, Annotated[float, Meta(ge=-100, le=100)]] | None = None
    samplers: str | Annotated[list[str], Meta(max_length=32)] | None = None
    dry_sequence_breakers: Annotated[list[str], Meta(max_length=32)] | None = None
    repetition_penalty: Number = None  # another name of repeat_penalty
    n_predict: Tokens | None = None  # another name of max_tokens
    ignore_eos: bool | None = None
    cache_prompt: bool | None = None
    lora: Annotated[list[AdapterScale], Meta(max_length=64)] | None = None  # others have 0
    grammar: Annotated[str, Meta(max_length=1 << 16)] | None = None
    json_schema: dict[str, Any] | None = None
    response_format: dict[str, Any] | None = None
    user: Annotated[str, Meta(max_length=512)] | None = None


class Message(msgspec.Struct):
    """One message of a conversation."""

    role: Annotated[str, Meta(min_length=1, max_length=64)]
    content: str | list[str | dict[str, Any]] | None = None
    name: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None
    refusal: str | None = None  # what an assistant said in place of content
    function_call: dict[str, Any] | None = None  # the older form of one of tool_calls


class ChatBody(SamplingBody, kw_only=True):
    """POST /v1/chat/completions and /apply-template."""

    messages: Annotated[list[Message], Meta(min_length=1, max_length=100_000)]
    tools: Annotated[list[dict[str, Any]], Meta(max_length=512)] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    reasoning_format: ReasoningFormat | None = None  # where thoughts stand, as llama-server has it
    thinking_budget_tokens: Tokens | None = None  # -1: no limit
    reasoning_effort: Annotated[str, Meta(max_length=32)] | None = None
    add_generation_prompt: bool = True
    continue_final_message: bool | None = None
    functions: Annotated[list[dict[str, Any]], Meta(max_length=512)] | None = None  # older tools
    function_call: str | dict[str, Any] | None = None  # older tool_choice
    max_completion_tokens: Tokens | None = None
    modalities: list[Literal["text"]] | None = None  # nothing here speaks
    truncation: Truncation | None = None  # auto: the oldest turns go where all do not fit
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None


class CompletionBody(SamplingBody, kw_only=True):
    """POST /v1/completions."""

    prompt: str | list[str | int | Ids]
    suffix: str | None = None
    echo: bool | None = None
    logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    best_of: Annotated[int, Meta(ge=1, le=16)] | None = None


class EmbeddingBody(msgspec.Struct, kw_only=True):
    """POST /v1/embeddings."""

    input: str | Annotated[list[str | int | Ids], Meta(min_length=1, max_length=2048)]
    model: str | None = None
    encoding_format: str | None = None
    dimensions: Annotated[int, Meta(ge=1, le=1 << 20)] | None = None
    user: str | None = None
    pooling: Annotated[str, Meta(max_length=16)] | None = None
    normalize: bool | None = None
    prompt_name: Annotated[str, Meta(max_length=128)] | None = None
    prompt: str | None = None
    truncate: bool | None = None


class RerankBody(msgspec.Struct, kw_only=True):
    """POST /v1/rerank; ``texts``: text-embeddings-inference's name of the documents."""

    query: str
    documents: Annotated[list[str | dict[str, Any]], Meta(max_length=4096)] | None = None
    texts: Annotated[list[str], Meta(max_length=4096)] | None = None
    model: str | None = None
    top_n: Annotated[int, Meta(ge=1)] | None = None
    return_documents: bool | None = None
    return_text: bool | None = None
    truncate: bool | None = None
    truncation: bool | None = None  # Jina's name of it


class TokenizeBody(msgspec.Struct, kw_only=True):
    """POST /tokenize."""

    content: str
    model: str | None = None
    add_special: bool = False
    parse_special: bool = True
    with_pieces: bool = False


class ModelBody(msgspec.Struct, kw_only=True):
    """POST /models/load and /models/unload."""

    model: Annotated[str, Meta(min_length=1, max_length=512)]


class DetokenizeBody(msgspec.Struct, kw_only=True):
    """POST /detokenize."""

    tokens: Ids
    model: str | None = None


def decode(body: bytes, kind: Any) -> Any:
    """Return the request body as ``kind``; APIError 400 naming the field where it does not fit."""
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        text, field = str(error), None
        if match := _AT.search(text):
            field, text = match.group(1), text[: match.start()]
            text = f"{field}: {text[:1].lower()}{text[1:]}"
        elif match := re.search(r"missing required field `(\w+)`", text):
            field = match.group(1)
            text = f"{field}: missing, it is required"
        else:
            text = f"the body: {text[:1].lower()}{text[1:]}"
        raise APIError(400, text, field) from None
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        detail = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise APIError(400, f"the body is not valid JSON: {detail}") from None


def unknown_fields(body: bytes | msgspec.Raw, kind: Any) -> list[str]:
    """Return the names of the members of a body, known to be valid, that ``kind`` lacks.

    Those of its messages and other structures, too, where they say something.
    """
    if not hasattr(kind, "__struct_fields__"):
        return []  # a list's items say themselves what they take
    members = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    found = members.keys() - set(kind.__struct_fields__)
    for name, (several, inner) in _structures(kind).items():
        raw = members.get(name)
        if raw is None or bytes(raw) in _NOTHING:
            continue
        parts = msgspec.json.decode(raw, type=list[msgspec.Raw]) if several else [raw]
        where = f"{name}[]" if several else name
        for part in parts:
            values = msgspec.json.decode(part, type=dict[str, msgspec.Raw])
            lacking = unknown_fields(part, inner)
            found |= {f"{where}.{n}" for n in lacking if bytes(values.get(n, b"")) not in _NOTHING}
    return sorted(found)


@functools.cache
def _structures(kind: Any) -> dict[str, tuple[bool, Any]]:
    """Return a structure's members that are structures, or lists of them: (a list?, class)."""
    info, found = msgspec.inspect.type_info(kind), {}
    assert isinstance(info, msgspec.inspect.StructType)
    for field in info.fields:
        one = field.type
        for kind_of in one.types if isinstance(one, msgspec.inspect.UnionType) else (one,):
            several = isinstance(kind_of, msgspec.inspect.ListType)
            inner = kind_of.item_type if isinstance(kind_of, msgspec.inspect.ListType) else kind_of
            if isinstance(inner, msgspec.inspect.StructType):
                found[field.encode_name] = several, inner.cls
    return found
