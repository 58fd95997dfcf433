"""Mistral's tekken.json brought to the form of tokenizer.json: bytes by rank, control tokens first.

Layout: github.com/mistralai/mistral-common. Two neighbours merge where their bytes together have a
rank, the lowest first; every such pair becomes a merge.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping
from typing import Any

from ggq.converters.vocab.plain_files import splitting
from ggq.errors import FormatError, printable
from ggq.runtime.tokenizers.bpe import byte_characters

__all__ = ["NAME", "SPECIAL", "as_tokenizer_json"]

NAME = "tekken.json"
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
MAX_TOKENS = 1 << 22
# Control tokens of files that list none, in their order; what is left of a thousand has no name.
UNLISTED = (
    *("<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]"),
    *("[TOOL_RESULTS]", "[/TOOL_RESULTS]", "[TOOL_CALLS]", "[IMG]", "<pad>", "[IMG_BREAK]"),
    *("[IMG_END]", "[PREFIX]", "[MIDDLE]", "[SUFFIX]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"),
    "[TOOL_CONTENT]",
)


def as_tokenizer_json(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return tokenizer.json for the object of tekken.json; FormatError."""
    config, entries = data.get("config"), data.get("vocab")
    if not isinstance(config, Mapping) or not isinstance(entries, list):
        raise FormatError(f"{NAME}: no config and vocab")
    size, n_special = config.get("default_vocab_size"), config.get("default_num_special_tokens")
    pattern = config.get("pattern")
    sizes = all(type(n) is int and 0 < n <= MAX_TOKENS for n in (size, n_special))
    if not sizes or not isinstance(pattern, str):
        raise FormatError(f"{NAME}: its config says no pattern and sizes")
    assert isinstance(size, int) and isinstance(n_special, int)
    pieces = list(_pieces(entries[: max(0, size - n_special)]))
    ranks = {piece: rank for rank, piece in enumerate(pieces)}
    if len(ranks) != len(pieces):
        raise FormatError(f"{NAME}: bytes of two tokens are the same")
    letters = {byte: letter for letter, byte in byte_characters().items()}
    texts = ["".join(letters[b] for b in piece) for piece in pieces]
    special = _special(data.get("special_tokens"), n_special)
    vocab = {text: n_special + rank for rank, text in enumerate(texts)}
    merges = [[texts[a], texts[b]] for a, b in _merges(pieces, ranks)]
    bos = {"SpecialToken": {"id": "<s>", "type_id": 0}}
    return {
        "model": {"type": "BPE", "vocab": vocab, "merges": merges, "ignore_merges": True},
        "pre_tokenizer": splitting(pattern),
        "added_tokens": [_added(number, text) for number, text in special.items()],
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [bos, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [bos, *({"Sequence": {"id": name, "type_id": 0}} for name in "AB")],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
        },
    }


def _added(number: int, text: str) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": number, "content": text, "special": True, **flags}


def _pieces(entries: list[Any]) -> Iterator[bytes]:
    """Yield each token's bytes in the order of ranks; FormatError."""
    for rank, entry in enumerate(entries):
        told = entry if isinstance(entry, Mapping) else {}
        try:
            piece = base64.b64decode(told["token_bytes"], validate=True)
        except (KeyError, TypeError, ValueError, binascii.Error):
            piece = b""
        if not piece or told.get("rank") != rank:
            raise FormatError(f"{NAME}: entry {rank} of vocab is malformed")
        yield piece


def _merges(pieces: list[bytes], ranks: Mapping[bytes, int]) -> Iterator[tuple[int, int]]:
    """Yield the pairs of ranks that make a token, the tokens in their order."""
    for piece in pieces:
        found = []
        for at in range(1, len(piece)):
            first, second = ranks.get(piece[:at]), ranks.get(piece[at:])
            if first is not None and second is not None:
                found.append((first, second))
        yield from sorted(found)


def _special(listed: Any, count: int) -> dict[int, str]:
    """Return the control tokens by id, ``count`` of them; FormatError."""
    entries = [{"rank": i, "token_str": text} for i, text in enumerate(UNLISTED)]
    if listed is not None:
        if not isinstance(listed, list):
            raise FormatError(f"{NAME}: special_tokens is no list")
        entries = listed
    found: dict[int, str] = {}
    for number, entry in enumerate(entries[:count] if listed is None else entries):
        told = entry if isinstance(entry, Mapping) else {}
        rank, text = told.get("rank"), told.get("token_str")
        if type(rank) is not int or not 0 <= rank < count or not isinstance(text, str):
            raise FormatError(f"{NAME}: entry {number} of special_tokens is malformed")
        found[rank] = text
    found = {i: found.get(i, f"<SPECIAL_{i}>") for i in range(count)}
    if len(set(found.values())) != count:
        twice = next(t for t in found.values() if list(found.values()).count(t) > 1)
        raise FormatError(f"{NAME}: special token {printable(twice)} is there twice")
    return found
