"""``tokenizer.ggml.model`` = gemma4: BPE over SentencePiece-like pieces, newlines kept together."""

from __future__ import annotations

from ggq.runtime.tokenizers.base import Tokenizer
from ggq.runtime.tokenizers.bpe import PieceTokenizer
from ggq.runtime.tokenizers.metadata import TokenizerMetadata


class Gemma4Tokenizer(PieceTokenizer):
    """Always starts with BOS: early files say otherwise and the models fail without it."""

    def __init__(self, meta: TokenizerMetadata) -> None:
        super().__init__(meta)
        self.add_bos = True


def build(meta: TokenizerMetadata) -> Tokenizer:
    """Return the tokenizer."""
    return Gemma4Tokenizer(meta)
