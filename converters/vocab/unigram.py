"""The vocabulary of a Unigram tokenizer.json (XLM-RoBERTa's and its like), as GGUF calls t5.

Pieces with their scores, the table of replacements that text goes through first, and what is done
with spaces. It does not know special ids or templates.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from ggq.converters.vocab.tokenizer_files import TokenizerFiles
from ggq.converters.vocab.tokens import BYTE_TOKEN, PADDING_SCORE, TokenList, added_token
from ggq.errors import FormatError, ModelError, printable
from ggq.runtime.tokenizers.base import BYTE, NORMAL, SPACE, UNKNOWN, UNUSED

__all__ = ["Spaces", "charsmap", "spaces", "unigram_tokens"]

MAX_PIECES = 1 << 26
ONE_SPACE = (r" {2,}", " ")  # pattern and content of the step that leaves one of several spaces


class Spaces(NamedTuple):
    """What happens to spaces: whether one is put before a text, and runs become one."""

    prefix: bool
    single: bool


def unigram_tokens(files: TokenizerFiles, n_vocab: int | None) -> TokenList:
    """Return the pieces of a Unigram tokenizer.json, padded to ``n_vocab``; FormatError."""
    where = files.folder / "tokenizer.json"
    pieces = files.model["vocab"]
    if not isinstance(pieces, list) or len(pieces) > MAX_PIECES:
        raise FormatError(f"{where}: the vocabulary of a Unigram model is a list")
    if not all(isinstance(p, list) and len(p) == 2 and _is_piece(*p) for p in pieces):
        raise FormatError(f"{where}: a piece is no pair of a text and a score")
    highest = max([len(pieces) - 1, *files.added], default=-1)
    size = highest + 1 if n_vocab is None else n_vocab
    if highest >= size:
        files.warnings.append(f"tokenizer: ids {size} to {highest} have no row in the embedding")
    unknown, bytes_too = files.model.get("unk_id"), bool(files.model.get("byte_fallback"))
    if unknown is None and not bytes_too:
        raise FormatError(f"{where}: unk_id is missing: texts with other characters have no ids")
    texts = [f"[PAD{i}]" for i in range(size)]
    types, scores = [UNUSED] * size, [PADDING_SCORE] * size
    for i, (text, score) in enumerate(pieces[:size]):
        texts[i], scores[i], types[i] = text, float(score), NORMAL
        if bytes_too and BYTE_TOKEN.fullmatch(text):
            types[i] = BYTE
    for i, added in files.added.items():
        if i < size:
            texts[i], types[i] = added_token(added)
            scores[i] = scores[i] if i < len(pieces) else 0.0
    if isinstance(unknown, int) and 0 <= unknown < size:
        types[unknown] = UNKNOWN
    return TokenList(texts, types, scores)


def _is_piece(text: Any, score: Any) -> bool:
    number = isinstance(score, (int, float)) and not isinstance(score, bool)
    return isinstance(text, str) and number and math.isfinite(score)


def _steps(part: Any, inner: str) -> Iterator[Mapping[str, Any]]:
    """Yield the steps of a normalizer or pre-tokenizer, sequences taken apart."""
    if not isinstance(part, Mapping):
        return
    if part.get("type") == "Sequence":
        for one in part.get(inner) or ():
            yield from _steps(one, inner)
    else:
        yield part


def charsmap(files: TokenizerFiles) -> tuple[np.ndarray | None, bool]:
    """Return SentencePiece's table of replacements, uint8, and whether runs of spaces become one.

    FormatError for a table that is no base64; ModelError for a step that GGUF has no key for.
    """
    table, single = None, False
    for step in _steps(files.json.get("normalizer"), "normalizers"):
        kind, pattern = step.get("type"), step.get("pattern")
        if kind == "Precompiled" and table is None:
            try:
                data = base64.b64decode(step.get("precompiled_charsmap") or "", validate=True)
            except (binascii.Error, ValueError, TypeError):
                where = files.folder / "tokenizer.json"
                raise FormatError(f"{where}: precompiled_charsmap is no base64") from None
            table = np.frombuffer(data, np.uint8) if data else None
        elif kind == "Replace" and isinstance(pattern, Mapping):
            if (pattern.get("Regex"), step.get("content")) not in (ONE_SPACE, (" {2,}", SPACE)):
                raise ModelError("tokenizer.json: normalizer 'Replace' has no GGUF form")
            single = True
        elif kind == "Strip":
            single = True
        else:
            raise ModelError(f"tokenizer.json: normalizer '{printable(kind)}' has no GGUF form")
    return table, single


def spaces(files: TokenizerFiles, single: bool) -> Spaces:
    """Return what the pre-tokenizer does with spaces; ModelError for a step without a GGUF form."""
    prefix = False
    for step in _steps(files.json.get("pre_tokenizer"), "pretokenizers"):
        kind = step.get("type")
        if kind == "WhitespaceSplit":
            single = True
        elif kind == "Metaspace" and step.get("replacement", SPACE) == SPACE:
            scheme = step.get("prepend_scheme")
            always = bool(step.get("add_prefix_space", True)) if scheme is None else None
            prefix = always if always is not None else scheme in ("always", "first")
        else:
            raise ModelError(
                f"tokenizer.json: pre_tokenizer step '{printable(kind)}' has no GGUF form"
            )
    return Spaces(prefix, single)
