"""``tokenizer.ggml.model`` = t5: SentencePiece unigram with its own text normalizer (T5, XLM-R)."""

from __future__ import annotations

import numpy as np

from ggq.runtime.tokenizers.base import Tokenizer
from ggq.runtime.tokenizers.llama import SentencePieceTokenizer
from ggq.runtime.tokenizers.metadata import PREFIX, TokenizerMetadata
from ggq.runtime.tokenizers.sentencepiece_model import UNIGRAM

MAX_CHARSMAP = 1 << 24


class UnigramTokenizer(SentencePieceTokenizer):
    """Most probable segmentation; spaces and prefix are SentencePiece's business here."""

    default_bos, default_eos, default_unk = None, 1, 2
    default_add_bos, default_add_eos = False, True
    default_space_prefix = False
    model_type = UNIGRAM

    def _normalizer(self, meta: TokenizerMetadata) -> dict:
        charsmap = b""
        value = meta.source.get(PREFIX + "precompiled_charsmap")
        if value is not None:
            array = np.asarray(value)
            if array.dtype.kind not in "iu" or array.itemsize != 1 or array.nbytes > MAX_CHARSMAP:
                raise meta.fail("precompiled_charsmap", "expected an array of bytes")
            charsmap = array.tobytes()
        return {
            "charsmap": charsmap,
            "add_dummy_prefix": self.add_space_prefix,
            "remove_extra_whitespaces": self.remove_extra_whitespaces,
        }

    def _encode_text(self, text: str, after_special: bool) -> list[int]:
        return [i for i in self._backend.EncodeAsIds(text) if i < self.n_vocab]


def build(meta: TokenizerMetadata) -> Tokenizer:
    """Return the tokenizer."""
    return UnigramTokenizer(meta)
