"""Byte-pair encoding on the ``tokenizers`` package: byte-level words, or raw UTF-8 pieces.

Builds the merge table from GGUF metadata. It does not know special tokens or which family it
serves.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache, cached_property
from typing import Any

import numpy as np

from ggq.errors import printable
from ggq.runtime.tokenizers.base import CONTROL, SPACE, UNUSED, Tokenizer
from ggq.runtime.tokenizers.merging import Merging
from ggq.runtime.tokenizers.metadata import TokenizerMetadata
from ggq.runtime.tokenizers.pre_tokenizers import PreTokenizer

_SHORT = 400  # characters of a text that Python merges in a few milliseconds


@cache
def byte_characters() -> dict[str, int]:
    """Return which printable character stands for which byte in byte-level BPE (GPT-2)."""
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [b for b in range(256) if b not in set(shown)]
    return {chr(b): b for b in shown} | {chr(256 + i): b for i, b in enumerate(hidden)}


def read_merges(meta: TokenizerMetadata) -> list[tuple[str, str]]:
    """Return the merges as pairs; FormatError where one is not two pieces with a space between."""
    merges = meta.strings("merges")
    quick = [merge.partition(" ")[::2] for merge in merges]
    if all(map(all, quick)):  # nearly always: 280k merges in 0.1 s
        return quick
    pairs = []
    for index, merge in enumerate(merges):
        at = merge.find(" ", 1)
        if at < 0 or at + 1 == len(merge):
            raise meta.fail("merges", f"entry {index} is not two pieces with a space between")
        pairs.append((merge[:at], merge[at + 1 :]))
    return pairs


def build_bpe(
    vocab: dict[str, int], merges: list[tuple[str, str]], meta: TokenizerMetadata, **options: Any
) -> Any:
    """Return a ``tokenizers`` BPE model; merges that name no token are left out."""
    from tokenizers import models

    try:
        return models.BPE(vocab, merges, **options)
    except Exception:  # the Rust side raises bare Exception: a merge names no token
        known = [(a, b) for a, b in merges if a in vocab and b in vocab and a + b in vocab]
    if len(known) * 2 < len(merges):
        raise meta.fail("merges", f"{len(merges) - len(known)} of {len(merges)} name no token")
    try:
        return models.BPE(vocab, known, **options)
    except Exception as error:
        raise meta.fail("merges", f"cannot be built: {printable(error)}") from None


def mergeable(tokenizer: Tokenizer) -> dict[str, int]:
    """Return the tokens that merging may yield: never a control, whatever a user types."""
    known = tokenizer.ids.copy()
    kinds = np.asarray(tokenizer.types_in_file)
    for i in np.flatnonzero(np.isin(kinds, (CONTROL, UNUSED))).tolist():
        if known.get(tokenizer.tokens[i]) == i:
            del known[tokenizer.tokens[i]]
    known.pop("", None)
    return known


class ByteLevelTokenizer(Tokenizer):
    """BPE over bytes written as printable characters (GPT-2 and most models since)."""

    def __init__(self, meta: TokenizerMetadata, pre: PreTokenizer) -> None:
        from tokenizers import Regex, pre_tokenizers

        self.default_add_bos = pre.add_bos
        super().__init__(meta)
        self.nfc = meta.flag("normalizer.nfc", False)  # ggq's own key: converters/vocab/read.py
        splits = [pre_tokenizers.Split(Regex(p), "isolated") for p in pre.patterns]
        to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        self._words = pre_tokenizers.Sequence([*splits, to_bytes])
        self._meta, self._ignore_merges = meta, pre.ignore_merges
        self._vocab, merges = mergeable(self), meta.strings("merges")
        self._merging: Merging | None = None
        if Merging.suits(self._vocab, merges):
            self._merging = Merging(self._vocab, merges, pre.ignore_merges)
        else:
            _ = self._backend  # which tells what is wrong with them, if it is too much

    @cached_property
    def _backend(self) -> Any:
        from tokenizers import Tokenizer as Backend

        merges = read_merges(self._meta)
        model = build_bpe(self._vocab, merges, self._meta, ignore_merges=self._ignore_merges)
        backend = Backend(model)
        backend.pre_tokenizer = self._words
        self._merging = None
        return backend

    def _encode_text(self, text: str, after_special: bool) -> list[int]:
        if self.nfc:
            text = unicodedata.normalize("NFC", text)
        merging = self._merging
        if merging is None or len(text) > _SHORT:
            ids: list[int] = self._backend.encode(text, add_special_tokens=False).ids
            return ids
        words = self._words.pre_tokenize_str(text)
        return [token for word, _ in words for token in merging.ids(word)]

    def _piece_bytes(self, piece: str) -> bytes:
        table = byte_characters()
        try:
            return bytes([table[char] for char in piece])
        except KeyError:  # a token that is plain text, as in padded vocabularies
            return piece.encode()


class PieceTokenizer(Tokenizer):
    """BPE over UTF-8 pieces with U+2581 for spaces and bytes for what is no piece (Gemma 4)."""

    def __init__(self, meta: TokenizerMetadata) -> None:
        from tokenizers import Tokenizer as Backend

        super().__init__(meta)
        vocab = mergeable(self)
        whole = all(f"<0x{b:02X}>" in vocab for b in range(256))
        self._backend = Backend(build_bpe(vocab, read_merges(meta), meta, byte_fallback=whole))
        self._words = re.compile("[^\n]+|\n+")

    def _encode_text(self, text: str, after_special: bool) -> list[int]:
        ids: list[int] = []
        for word in self._words.findall(text.replace(" ", SPACE)):
            newlines = self.ids.get(word) if word[0] == "\n" else None
            if newlines is not None:
                ids.append(newlines)
            else:
                ids += self._backend.encode(word, add_special_tokens=False).ids
        return ids
