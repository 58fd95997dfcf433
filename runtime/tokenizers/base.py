"""What every tokenizer shares: special tokens, BOS and EOS, ends of generation, decoding.

A family adds how plain text becomes ids and how a token becomes bytes. It does not know chat
templates or models.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable

import numpy as np

from ggq.errors import UsageError
from ggq.runtime.tokenizers import specials
from ggq.runtime.tokenizers.metadata import TokenizerMetadata

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)  # tokenizer.ggml.token_type
SPACE = "▁"  # U+2581 stands for a space in SentencePiece vocabularies
ASCII_SPACE = " \t\n\v\f\r"
MAX_VOCAB = 1 << 26


def well_formed(text: str) -> str:
    """Return ``text`` with lone surrogates replaced by U+FFFD, so that it has a UTF-8 form."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def byte_value(token: str) -> int | None:
    """Return the byte that a token like ``<0x0A>`` stands for, None for any other text."""
    if len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
        try:
            return int(token[3:5], 16)
        except ValueError:
            return None
    return None


class Tokenizer:
    """Text to token ids and back, from GGUF metadata alone.

    Attributes: ``n_vocab``, ``bos_id``, ``eos_id``, ``unk_id``, ``pad_id`` (None where the file
    names none), ``add_bos``, ``add_eos``, ``add_space_prefix``, ``eog_ids`` (frozenset of ids
    that end an answer). Raises FormatError naming the key where the metadata is inconsistent.
    """

    default_bos: int | None = None
    default_eos: int | None = None
    default_unk: int | None = None
    default_add_bos = False
    default_add_eos = False
    default_space_prefix = False

    def __init__(self, meta: TokenizerMetadata) -> None:
        self.model = meta.text("model")
        self.pre = meta.text("pre", "default")
        self.tokens = meta.strings("tokens")
        self.n_vocab = n = len(self.tokens)
        if not 0 < n <= MAX_VOCAB:
            raise meta.fail("tokens", f"a vocabulary of {n} tokens")
        types = meta.numbers("token_type", n, np.int64)
        self.types_in_file: list[int] = [NORMAL] * n if types is None else types.tolist()
        self.types = self.types_in_file.copy()  # and what the names of special tokens say
        # The first of several equal texts counts: padding comes last.
        self.ids: dict[str, int] = dict(zip(reversed(self.tokens), reversed(range(n)), strict=True))
        self.bos_id = meta.token_id("bos_token_id", n, self.default_bos)
        self.eos_id = meta.token_id("eos_token_id", n, self.default_eos)
        self.unk_id = meta.token_id("unknown_token_id", n, self.default_unk)
        self.pad_id = meta.token_id("padding_token_id", n, None)
        self.sep_id = meta.token_id("seperator_token_id", n, None)
        self.mask_id = meta.token_id("mask_token_id", n, None)
        self.eot_id = meta.token_id("eot_token_id", n, None)
        self.eom_id = meta.token_id("eom_token_id", n, None)
        self.add_bos = meta.flag("add_bos_token", self.default_add_bos)
        self.add_eos = meta.flag("add_eos_token", self.default_add_eos)
        self.add_sep = meta.flag("add_sep_token", False)
        self.add_space_prefix = meta.flag("add_space_prefix", self.default_space_prefix)
        self.remove_extra_whitespaces = meta.flag("remove_extra_whitespaces", False)
        self._bytes: list[bytes | None] = [None] * n
        self._find_specials(meta)

    def _find_specials(self, meta: TokenizerMetadata) -> None:
        """Complete token types and ends of generation from the known names of special tokens."""
        ends = specials.end_names(self.ids)
        if "</s>" in ends and self.types[self.ids["</s>"]] == NORMAL:
            ends.discard("</s>")  # an HTML tag, as for Qwen; unless it is EOS, below
        controls = ends | ({"<|end|>"} & self.ids.keys())
        eog = {self.ids[name] for name in ends}
        for key, names in specials.FILL_IN_THE_MIDDLE.items():
            chosen = meta.token_id(key, self.n_vocab, None)
            if chosen is None and (found := [name for name in names if name in self.ids]):
                chosen = self.ids[found[0]]
                controls.update(found)
            if key in specials.FILL_IN_THE_MIDDLE_ENDS and chosen is not None:
                eog.add(chosen)
        for name in controls:  # by its name, whatever its type says
            self.types[self.ids[name]] = CONTROL
        eog |= {i for i in (self.eos_id, self.eot_id, self.eom_id) if i is not None}
        self.eog_ids = frozenset(eog)
        self._index_specials(meta)

    def _index_specials(self, meta: TokenizerMetadata) -> None:
        """Order special tokens for splitting, and say which are hidden or swallow white space."""
        kinds = np.asarray(self.types)
        special = np.flatnonzero(np.isin(kinds, (CONTROL, UNKNOWN, USER_DEFINED))).tolist()
        special.sort(key=lambda i: -len(self.tokens[i].encode()))
        self._specials: dict[str, list[tuple[int, str, int]]] = {}  # by first character
        for rank, i in enumerate(special):
            if text := self.tokens[i]:
                self._specials.setdefault(text[0], []).append((rank, text, i))
        structure = (*specials.HARMONY_STRUCTURE, "<|end|>")
        shown = {self.ids[t] for t in structure if t in self.ids} - self.eog_ids
        controls = (i for i in special if self.types[i] != USER_DEFINED)
        self._hidden = frozenset(controls) - shown
        name, arch = (str(meta.source.get(f"general.{k}", "")) for k in ("name", "architecture"))
        self.strips_left, self.strips_right = specials.strip_rules(
            name, arch, self.pre, self.ids, special
        )

    # -- text to ids

    def encode(self, text: str, add_special: bool = True, parse_special: bool = False) -> list[int]:
        """Return the token ids of ``text``.

        ``add_special`` adds BOS and EOS where the file asks for them. Only ``parse_special`` turns
        typed control tokens such as ``<|im_end|>`` into their ids: leave it off for a user's text.
        """
        ids = [self.bos_id] if add_special and self.add_bos and self.bos_id is not None else []
        after_special = True
        for part in self._split_specials(well_formed(text), parse_special):
            if isinstance(part, int):
                ids.append(part)
                after_special = True
            else:
                ids += self._encode_text(part, after_special)
                after_special = False
        if add_special and self.add_eos and self.eos_id is not None:
            ids.append(self.eos_id)
        return ids

    def _encode_text(self, text: str, after_special: bool) -> list[int]:
        """Return the ids of plain text, which follows a special token or the start or not."""
        raise NotImplementedError

    def _split_specials(self, text: str, parse_special: bool) -> list[str | int]:
        """Cut ``text`` at special tokens, the longest first, each one through the whole text."""
        candidates = sorted(
            entry
            for char in set(text) & self._specials.keys()
            for entry in self._specials[char]
            if (parse_special or self._is_plain(entry[2])) and entry[1] in text
        )
        parts: list[str | int] = [text] if text else []
        for _, special, token in candidates:
            cut: list[str | int] = []
            for part in parts:
                if isinstance(part, str) and special in part:
                    cut += self._cut(part, special, token)
                else:
                    cut.append(part)
            parts = cut
        return parts

    def _is_plain(self, token: int) -> bool:
        """Return whether typed text may yield this special token: user-defined, and no marker.

        Files type markers such as Command R's <|START_OF_TURN_TOKEN|> user-defined, too; llama.cpp
        lets a user forge those.
        """
        text = self.tokens[token]
        marker = text.startswith(("<|", "<｜")) or text.endswith(("|>", "｜>"))
        return self.types[token] == USER_DEFINED and not marker

    def _cut(self, text: str, special: str, token: int) -> list[str | int]:
        pieces = text.split(special)
        if token in self.strips_left:
            pieces[:-1] = [piece.rstrip(ASCII_SPACE) for piece in pieces[:-1]]
        if token in self.strips_right:
            pieces[1:] = [piece.lstrip(ASCII_SPACE) for piece in pieces[1:]]
        parts: list[str | int] = []
        for i, piece in enumerate(pieces):
            if i:
                parts.append(token)
            if piece:
                parts.append(piece)
        return parts

    # -- ids to text

    def is_control(self, token: int) -> bool:
        """Return whether a token is a control (or unknown) token rather than text."""
        return self.types[self._checked(token)] in (CONTROL, UNKNOWN)

    def all_controls(self) -> list[int]:
        """Return all control (or unknown) tokens, in order."""
        found: list[int] = np.flatnonzero(np.isin(self.types, (CONTROL, UNKNOWN))).tolist()
        return found

    def token_bytes(self, token: int) -> bytes:
        """Return the bytes that a token adds to the text; UsageError if there is no such token."""
        known = self._bytes[self._checked(token)]
        if known is None:
            known = self._bytes[token] = self._make_bytes(token)
        return known

    def _make_bytes(self, token: int) -> bytes:
        """Return the bytes of a token not asked for before."""
        text, kind = self.tokens[token], self.types[token]
        if kind in (CONTROL, UNKNOWN, USER_DEFINED):
            return text.encode()
        if kind == BYTE and (value := byte_value(text)) is not None:
            return bytes([value])
        return self._piece_bytes(text)

    def _piece_bytes(self, piece: str) -> bytes:
        """Return the bytes of a normal token's text."""
        return piece.replace(SPACE, " ").encode()

    def _checked(self, token: int) -> int:
        if not 0 <= token < self.n_vocab:
            raise UsageError(f"token id {token} is outside the vocabulary of {self.n_vocab}")
        return token

    def decode(self, ids: Iterable[int], skip_special: bool = False) -> str:
        """Return the text of ``ids``; ``skip_special`` leaves control tokens out.

        The space that encoding puts in front of the text is taken off again. Bytes that are not
        UTF-8 become U+FFFD.
        """
        ids = list(ids)
        if ids and self.add_bos and ids[0] == self.bos_id:
            head, ids = ([] if skip_special else [self.token_bytes(ids[0])]), ids[1:]
        else:
            head = []
        parts = [b"" if skip_special and i in self._hidden else self.token_bytes(i) for i in ids]
        body = b"".join(parts)
        if self.add_space_prefix and ids and not self.is_control(ids[0]):
            body = body.removeprefix(b" ")
        return (b"".join(head) + body).decode("utf-8", "replace")

    def stream(self, skip_special: bool = True) -> TokenStream:
        """Return a decoder that takes one id at a time."""
        return TokenStream(self, skip_special)


class TokenStream:
    """Incremental decoding: text comes out only in whole characters."""

    def __init__(self, tokenizer: Tokenizer, skip_special: bool = True) -> None:
        self._tokenizer, self._skip_special = tokenizer, skip_special
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token: int) -> str:
        """Return the text that ``token`` completes, often less or more than its own bytes."""
        data = self._tokenizer.token_bytes(token)
        if self._skip_special and token in self._tokenizer._hidden:
            return ""
        return self._decoder.decode(data)

    def flush(self) -> str:
        """Return what is held back, U+FFFD for half a character, and start anew."""
        text = self._decoder.decode(b"", final=True)
        self._decoder.reset()
        return text
