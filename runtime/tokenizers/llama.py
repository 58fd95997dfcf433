"""``tokenizer.ggml.model`` = llama: SentencePiece BPE by piece scores with byte fallback.

The sentencepiece package does the merging, from a model built of the GGUF's pieces. It agrees with
llama.cpp's own merging (highest score first, then leftmost); only typed control tokens differ:
here no merge ever yields one.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from ggq.runtime.tokenizers.base import (
    BYTE,
    CONTROL,
    NORMAL,
    SPACE,
    UNKNOWN,
    UNUSED,
    Tokenizer,
    byte_value,
)  # fmt: skip
from ggq.runtime.tokenizers.metadata import TokenizerMetadata
from ggq.runtime.tokenizers.sentencepiece_model import BPE, build_model


def distinct_pieces(
    tokens: list[str], scores: list[float], types: list[int], unk_id: int | None
) -> list[tuple[str, float, int]]:
    """Return pieces as SentencePiece wants them: distinct, not empty, one of them unknown.

    Repeated and empty ones (padding) become controls that no text can reach. Without an unknown
    token one is added at the end.
    """
    if unk_id is None or types[unk_id] not in (UNKNOWN, CONTROL, NORMAL):
        unk_id = next((i for i, kind in enumerate(types) if kind == UNKNOWN), None)
    kinds = np.asarray(types)
    kinds[kinds == UNUSED] = NORMAL  # as llama.cpp: a piece that merges may reach
    kinds[(kinds != NORMAL) & (kinds != BYTE)] = CONTROL
    if unk_id is not None:
        kinds[unk_id] = UNKNOWN
    pieces = list(zip(tokens, scores, kinds.tolist(), strict=True))
    texts = set(tokens)
    if len(texts) < len(tokens) or "" in texts:
        _rename_repeated(pieces, texts)
    if unk_id is None:
        pieces.append((unique("<ggq:unk>", texts), 0.0, UNKNOWN))
    return pieces


def _rename_repeated(pieces: list[tuple[str, float, int]], texts: set[str]) -> None:
    """Turn empty pieces and all but the first of equal ones into controls of other names."""
    seen = {""}
    for i, (text, score, kind) in enumerate(pieces):
        if text in seen:
            name = unique(f"<ggq:{i}>", texts)
            pieces[i] = name, score, UNKNOWN if kind == UNKNOWN else CONTROL
        seen.add(pieces[i][0])


def unique(name: str, taken: set[str]) -> str:
    """Return ``name``, lengthened until it is not in ``taken``."""
    while name in taken:
        name += ">"
    return name


class SentencePieceTokenizer(Tokenizer):
    """SPM: spaces become U+2581, one is put in front where ``add_space_prefix`` says so."""

    default_bos: int | None = 1
    default_eos: int | None = 2
    default_unk: int | None = 0
    default_add_bos = True
    default_space_prefix = True
    model_type = BPE

    def __init__(self, meta: TokenizerMetadata) -> None:
        from sentencepiece import SentencePieceProcessor

        super().__init__(meta)
        scores = meta.numbers("scores", self.n_vocab, np.float32)
        if scores is None:
            raise meta.fail("scores", "the key is missing")
        if not np.isfinite(scores).all():
            raise meta.fail("scores", "a score is not a finite number")
        kinds = self.types.copy()
        for i in [i for i, kind in enumerate(kinds) if kind == BYTE]:
            if byte_value(self.tokens[i]) is None:
                kinds[i] = NORMAL
        pieces = distinct_pieces(self.tokens, scores.tolist(), kinds, self.unk_id)
        n_bytes = len({byte_value(text) for text, _, kind in pieces if kind == BYTE})
        if n_bytes < 256:  # then SentencePiece wants no byte pieces at all
            pieces = [(t, s, CONTROL if k == BYTE else k) for t, s, k in pieces]
        unk_id = next(i for i, piece in enumerate(pieces) if piece[2] == UNKNOWN)
        data = build_model(
            pieces,
            self.model_type,
            byte_fallback=n_bytes == 256,
            unk_id=unk_id,
            **self._normalizer(meta),
        )
        self._backend = SentencePieceProcessor()
        try:
            self._backend.LoadFromSerializedProto(data)
        except (RuntimeError, ValueError) as error:
            raise meta.fail("tokens", f"SentencePiece refuses them: {error}") from None

    def _normalizer(self, meta: TokenizerMetadata) -> dict[str, Any]:
        return {}

    def _encode_text(self, text: str, after_special: bool) -> list[int]:
        if self.remove_extra_whitespaces:
            text = re.sub(" +", " ", text).strip(" ")
        if self.add_space_prefix and after_special:
            text = " " + text
        ids = self._backend.EncodeAsIds(text.replace(" ", SPACE))
        return [i for i in ids if i < self.n_vocab]


def build(meta: TokenizerMetadata) -> Tokenizer:
    """Return the tokenizer."""
    return SentencePieceTokenizer(meta)
