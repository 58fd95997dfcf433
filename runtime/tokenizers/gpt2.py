"""``tokenizer.ggml.model`` = gpt2: byte-level BPE with the pre-tokenizer named by ``.pre``."""

from __future__ import annotations

from ggq.errors import ModelError, printable
from ggq.runtime.tokenizers.base import Tokenizer
from ggq.runtime.tokenizers.bpe import ByteLevelTokenizer, PieceTokenizer
from ggq.runtime.tokenizers.metadata import TokenizerMetadata
from ggq.runtime.tokenizers.pre_tokenizers import PRE_TOKENIZERS


class FalconTokenizer(ByteLevelTokenizer):
    """Falcon's token 11 ends a text where old files name no other."""

    default_bos = default_eos = 11


def build(meta: TokenizerMetadata) -> Tokenizer:
    """Return the tokenizer; ModelError for a pre-tokenizer id that ggq does not know."""
    name = meta.text("pre", "default")
    pre = PRE_TOKENIZERS.get(name)
    if pre is None:
        raise ModelError(f"tokenizer.ggml.pre: unknown pre-tokenizer '{printable(name)}'")
    if not pre.byte_level:
        return PieceTokenizer(meta)
    return (FalconTokenizer if name == "falcon" else ByteLevelTokenizer)(meta, pre)
