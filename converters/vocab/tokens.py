"""Token texts, types and scores of a Hugging Face tokenizer, id by id, as GGUF wants them.

One function per family. It does not know keys, special ids or templates.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

from ggq.converters.vocab.tokenizer_files import Added, TokenizerFiles, looks_special
from ggq.errors import GIT_LFS, FormatError, ModelError, pointer_error, printable, reason
from ggq.runtime.tokenizers.base import (
    BYTE,
    CONTROL,
    NORMAL,
    SPACE,
    UNKNOWN,
    UNUSED,
    USER_DEFINED,
)  # fmt: skip
from ggq.runtime.tokenizers.sentencepiece_model import read_normalizer

BYTE_TOKEN = re.compile("<0x[0-9A-Fa-f]{2}>")
ADDED_SCORE, PADDING_SCORE = -1000.0, -10000.0  # as llama.cpp's converter
# Gemma 4 marks these special, but whoever parses its answers must see them.
GEMMA4_SHOWN = {
    "<|channel>", "<channel|>", "<|tool_call>", "<tool_call|>", "<|tool_response>",
    "<tool_response|>", '<|"|>',
}  # fmt: skip


class TokenList(NamedTuple):
    """Parallel lists over the ids; ``scores`` is None where the family has none."""

    texts: list[str]
    types: list[int]
    scores: list[float] | None = None


def added_token(added: Added) -> tuple[str, int]:
    """Return text and type of an added token; ordinary ones have their spaces spelled out."""
    if added.special or looks_special(added.text):
        return added.text, CONTROL
    return added.text.replace(SPACE, " "), USER_DEFINED


def vocabulary(files: TokenizerFiles) -> dict[int, str]:
    """Return tokenizer.json's own vocabulary by id; FormatError where it is malformed."""
    where = files.folder / "tokenizer.json"
    vocab = files.model["vocab"]
    if not isinstance(vocab, dict):
        kind = printable(files.model.get("type"))
        raise ModelError(f"{where}: the vocabulary of a {kind} model names no ids: not supported")
    if not all(type(number) is int and 0 <= number < 1 << 26 for number in vocab.values()):
        raise FormatError(f"{where}: a token id is not a small number")
    return {number: text for text, number in vocab.items()}


def _size(files: TokenizerFiles, n_vocab: int | None, highest: int) -> int:
    """Return the number of tokens to write; warn of those that have no row in the embedding."""
    if n_vocab is None:
        return highest + 1
    if highest >= n_vocab:
        files.warnings.append(
            f"tokenizer: ids {n_vocab} to {highest} have no row in the embedding: left out"
        )
    return n_vocab


def bpe_tokens(files: TokenizerFiles, n_vocab: int | None) -> TokenList:
    """Return the tokens of a byte-level BPE (or WordPiece) tokenizer.json, padded to n_vocab."""
    known, added = vocabulary(files), files.added
    size = _size(files, n_vocab, max([*known, *added], default=-1))
    texts, types = [], []
    for number in range(size):
        if number in added:
            text, kind = added_token(added[number])
        elif number in known:
            text, kind = known[number], NORMAL
        else:
            text, kind = f"[PAD{number}]", UNUSED
        texts.append(text)
        types.append(kind)
    return TokenList(texts, types)


def wordpiece_tokens(files: TokenizerFiles, n_vocab: int | None) -> TokenList:
    """Return WordPiece tokens with U+2581 where a word begins and nothing where one goes on."""
    tokens = bpe_tokens(files, n_vocab)
    prefix = files.model.get("continuing_subword_prefix", "##")

    def phantom(text: str, kind: int) -> str:
        if kind == CONTROL:
            return text
        return text[len(prefix) :] if text.startswith(prefix) else SPACE + text

    texts = [phantom(t, k) for t, k in zip(tokens.texts, tokens.types, strict=True)]
    return TokenList(texts, tokens.types)


def merge_pairs(files: TokenizerFiles) -> list[tuple[str, str]]:
    """Return the merges of tokenizer.json, given as "a b" or as ["a", "b"]; FormatError."""
    pairs = []
    for index, merge in enumerate(files.model.get("merges") or ()):
        if isinstance(merge, str):
            at = merge.find(" ", 1)
            pair = [merge[:at], merge[at + 1 :]] if at > 0 else []
        else:
            pair = merge
        if not isinstance(pair, list) or [type(part) for part in pair] != [str, str]:
            raise FormatError(f"{files.folder / 'tokenizer.json'}: merge {index} is not a pair")
        pairs.append((pair[0], pair[1]))
    return pairs


def merge_strings(files: TokenizerFiles) -> list[str]:
    """Return the merges as GGUF has them; a space inside a piece becomes its byte-level letter."""
    space = chr(ord(" ") + 256)
    return [f"{a.replace(' ', space)} {b.replace(' ', space)}" for a, b in merge_pairs(files)]


def fast_spm_tokens(files: TokenizerFiles, n_vocab: int | None) -> TokenList:
    """Return the pieces of a BPE tokenizer.json with byte fallback (SPM without tokenizer.model).

    A piece's score is minus the rank of the first merge that yields it, which makes merging by
    score follow the merges; llama.cpp's converter writes -1000 for all, and loses the order.
    """
    tokens = bpe_tokens(files, n_vocab)
    ranks: dict[str, int] = {}
    merges = merge_pairs(files)
    for rank, (a, b) in enumerate(merges):
        ranks.setdefault(a + b, rank)
    types = [
        BYTE if kind == NORMAL and BYTE_TOKEN.fullmatch(text) else kind
        for text, kind in zip(tokens.texts, tokens.types, strict=True)
    ]
    default = {NORMAL: -float(len(merges)), UNUSED: PADDING_SCORE, BYTE: 0.0}
    scores = [
        -float(ranks[text]) if kind == NORMAL and text in ranks else default.get(kind, ADDED_SCORE)
        for text, kind in zip(tokens.texts, types, strict=True)
    ]
    return TokenList(tokens.texts, types, scores)


def gemma4_tokens(files: TokenizerFiles, n_vocab: int | None) -> TokenList:
    """Return Gemma 4's pieces; scores mean nothing there but are expected."""
    tokens = bpe_tokens(files, n_vocab)
    types = []
    for text, kind in zip(tokens.texts, tokens.types, strict=True):
        if text in GEMMA4_SHOWN:
            kind = USER_DEFINED
        elif kind == NORMAL and BYTE_TOKEN.fullmatch(text):
            kind = BYTE
        types.append(kind)
    return TokenList(tokens.texts, types, [ADDED_SCORE] * len(types))


def spm_tokens(files: TokenizerFiles, n_vocab: int | None) -> tuple[TokenList, dict[str, bool]]:
    """Return the pieces of tokenizer.model, added tokens over them, and its normalizer's flags."""
    model = load_sentencepiece(files)
    n_pieces = model.vocab_size()
    size = _size(files, n_vocab, max([n_pieces - 1, *files.added]))
    texts = [f"[PAD{i}]" for i in range(size)]
    types, scores = [UNUSED] * size, [PADDING_SCORE] * size
    kinds: tuple[tuple[Callable[[int], bool], int], ...] = (
        (model.IsUnknown, UNKNOWN), (model.IsControl, CONTROL), (model.IsUnused, UNUSED),
        (model.IsByte, BYTE),
    )  # fmt: skip
    for i in range(min(n_pieces, size)):
        texts[i], scores[i] = model.IdToPiece(i), model.GetScore(i)
        types[i] = next((kind for test, kind in kinds if test(i)), NORMAL)
    for i, added in files.added.items():
        if i >= size:
            continue
        if types[i] != UNUSED and texts[i] != added.text:
            files.warnings.append(
                f"token {i}: '{printable(texts[i])}' replaced by '{printable(added.text)}'"
            )
        texts[i], types[i] = added_token(added)
        scores[i] = ADDED_SCORE
    return TokenList(texts, types, scores), read_normalizer(model.serialized_model_proto())


def load_sentencepiece(files: TokenizerFiles) -> Any:
    """Return tokenizer.model opened by sentencepiece; FormatError where it is not one."""
    from sentencepiece import SentencePieceProcessor

    processor = SentencePieceProcessor()
    path = files.sentencepiece or files.folder / "tokenizer.model"
    try:
        data = path.read_bytes()
        if data.startswith(GIT_LFS):
            raise pointer_error(path)
        processor.LoadFromSerializedProto(data)
    except (RuntimeError, OSError, ValueError) as error:
        raise FormatError(f"{path}: cannot be read: {reason(error)}") from None
    return processor
