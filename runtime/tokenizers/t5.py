"""``tokenizer.ggml.model`` = t5: SentencePiece unigram with its own text normalizer (T5, XLM-R)."""

from __future__ import annotations

from typing import Any

import numpy as np

from ggq.runtime.tokenizers.base import Tokenizer
from ggq.runtime.tokenizers.llama import SentencePieceTokenizer
from ggq.runtime.tokenizers.metadata import PREFIX, TokenizerMetadata
from ggq.runtime.tokenizers.sentencepiece_model import UNIGRAM

MAX_CHARSMAP = 1 << 24


def is_safe_charsmap(data: bytes) -> bool:
    """Return whether no walk through the double array leaves it and no replacement is open-ended.

    SentencePiece follows it without looking (darts-clone: a unit holds label, leaf bit 8 and
    offset, or with bit 31 a value). Layout: u32 bytes of the array, array, strings with NUL.
    """
    size = int.from_bytes(data[:4], "little")
    strings = data[4 + size :]
    if size < 1024 or size % 1024 or not strings or strings[-1] != 0:
        return False
    units = np.frombuffer(data, "<u4", size // 4, 4).astype(np.int64)
    is_value = units >> 31 == 1
    offset = (units >> 10 & 0x1FFFFF) << ((units & 0x200) >> 6)
    child = np.arange(len(units)) ^ offset
    if np.any(~is_value & (child | 0xFF >= len(units))):
        return False
    ends = child[(units >> 8 & 1 == 1) & ~is_value]
    return bool(np.all(is_value[ends]) and np.all(units[ends] & 0x7FFFFFFF < len(strings)))


class UnigramTokenizer(SentencePieceTokenizer):
    """Most probable segmentation; spaces and prefix are SentencePiece's business here."""

    default_bos, default_eos, default_unk = None, 1, 2
    default_add_bos, default_add_eos = False, True
    default_space_prefix = False
    model_type = UNIGRAM

    def _normalizer(self, meta: TokenizerMetadata) -> dict[str, Any]:
        charsmap = b""
        value = meta.source.get(PREFIX + "precompiled_charsmap")
        if value is not None:
            array = np.asarray(value)
            if array.dtype.kind not in "iu" or array.itemsize != 1 or array.nbytes > MAX_CHARSMAP:
                raise meta.fail("precompiled_charsmap", "expected an array of bytes")
            charsmap = array.tobytes()
            if charsmap and not is_safe_charsmap(charsmap):
                raise meta.fail("precompiled_charsmap", "not a well-formed table of replacements")
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
