"""``tokenizer.ggml.model`` = bert: WordPiece for embedding models.

Greedy longest match as in llama.cpp's llm_tokenizer_wpm: a word begins with U+2581, continuations
do not; text is cleaned as BERT does (nonspacing accents only, all of Unicode's decompositions). It
does not know models or pooling.
"""

from __future__ import annotations

import unicodedata

from ggq.runtime.tokenizers.base import SPACE, Tokenizer
from ggq.runtime.tokenizers.metadata import TokenizerMetadata

# Code points that are words of their own (BERT's tokenize_chinese_chars, as in HF tokenizers).
IDEOGRAPHS = (
    (0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F), (0x2B920, 0x2CEAF), (0xF900, 0xFAFF), (0x2F800, 0x2FA1F),
)  # fmt: skip
MAX_WORD = 100  # longer words are unknown: BERT's max_input_chars_per_word, which no key says
MAX_PIECE = 256  # bounds the time of the greedy match


def stands_alone(char: str, category: str) -> bool:
    """Return whether ``char`` is a word by itself: punctuation, ASCII symbols, ideographs."""
    code = ord(char)
    if category[0] == "P" or (code < 0x7F and category[0] == "S"):
        return True
    return code >= 0x3400 and any(low <= code <= high for low, high in IDEOGRAPHS)


class WordPieceTokenizer(Tokenizer):
    """WordPiece; ``add_special`` puts CLS in front and SEP behind, whatever add_bos says."""

    default_bos, default_unk = 101, 100
    default_add_bos = True

    def __init__(self, meta: TokenizerMetadata) -> None:
        super().__init__(meta)
        self.lowercase = meta.flag("normalizer.lowercase", True)
        self.strip_accents = meta.flag("normalizer.strip_accents", self.lowercase)
        self.add_bos, self.add_eos = True, False  # files give SEP as EOS, too: one of it
        self.add_sep = False
        if self.sep_id is None:
            self.sep_id = meta.token_id("seperator_token_id", self.n_vocab, 102)
        if self.bos_id is None or self.sep_id is None or self.unk_id is None:
            raise meta.fail("tokens", "no CLS, SEP or unknown token among them")
        self._longest = min(max(map(len, self.tokens)), MAX_PIECE)

    def encode(self, text: str, add_special: bool = True, parse_special: bool = False) -> list[int]:
        """Return the token ids of ``text``; see Tokenizer.encode."""
        ids = super().encode(text, add_special, parse_special)
        return [*ids, self.sep_id] if add_special else ids  # type: ignore[list-item]

    def _encode_text(self, text: str, after_special: bool) -> list[int]:
        return [i for word in self._words(text) for i in self._word_ids(word)]

    def _words(self, text: str) -> list[str]:
        if self.strip_accents:
            text = unicodedata.normalize("NFD", text)
        out: list[str] = []
        dropped = {"Cc", "Cf", "Co"} | ({"Mn"} if self.strip_accents else set())
        for char in text:
            category = unicodedata.category(char)
            if char in "\t\n\r" or category[0] == "Z":
                out.append(" ")
            elif char == "\ufffd" or category in dropped:
                continue
            elif stands_alone(char, category):
                out.append(f" {char} ")
            else:
                out.append(char)
        text = "".join(out)
        return (text.lower() if self.lowercase else text).split()

    def _word_ids(self, word: str) -> list[int]:
        if len(word) > MAX_WORD:
            return [self.unk_id]  # type: ignore[list-item]
        text, start, found = SPACE + word, 0, []
        while start < len(text):
            for end in range(min(len(text), start + self._longest), start, -1):
                if (token := self.ids.get(text[start:end])) is not None:
                    found.append(token)
                    start = end
                    break
            else:
                return [self.unk_id]  # type: ignore[list-item]
        return found


def build(meta: TokenizerMetadata) -> Tokenizer:
    """Return the tokenizer."""
    return WordPieceTokenizer(meta)
