"""From GGUF metadata back to a folder's tokenizer files, for ``ggq export``.

Writes tokenizer.json, tokenizer_config.json, special_tokens_map.json and, for SentencePiece
families, tokenizer.model. It does not know models or weights.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ggq.converters.vocab.compare import first_difference
from ggq.errors import ModelError, printable
from ggq.runtime.tokenizers import tokenizer_from_gguf
from ggq.runtime.tokenizers.base import (
    BYTE,
    CONTROL,
    NORMAL,
    SPACE,
    UNKNOWN,
    UNUSED,
    USER_DEFINED,
    Tokenizer,
)  # fmt: skip
from ggq.runtime.tokenizers.bpe import ByteLevelTokenizer, read_merges
from ggq.runtime.tokenizers.llama import distinct_pieces
from ggq.runtime.tokenizers.metadata import TokenizerMetadata
from ggq.runtime.tokenizers.pre_tokenizers import PRE_TOKENIZERS
from ggq.runtime.tokenizers.sentencepiece_model import build_model

NAMES = (("bos", "bos_id"), ("eos", "eos_id"), ("unk", "unk_id"), ("pad", "pad_id"),
         ("sep", "sep_id"), ("mask", "mask_id"))  # fmt: skip


def write_vocab(source: Any, folder: Path) -> list[str]:
    """Write the tokenizer of a GGUFFile (or its metadata) as Hugging Face files; return warnings.

    Raises FormatError for broken metadata, ModelError for a family that has no such form.
    """
    folder = Path(folder)
    meta = TokenizerMetadata(source)
    tokenizer = tokenizer_from_gguf(source)
    build = BUILDERS.get(tokenizer.model)
    if build is None:
        raise ModelError(
            f"tokenizer.ggml.model: '{printable(tokenizer.model)}' cannot be exported yet"
        )
    parts = build(tokenizer, meta)
    data = {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": _added_tokens(tokenizer), "normalizer": None, "pre_tokenizer": None,
        "post_processor": _post_processor(tokenizer), "decoder": None, **parts,
    }  # fmt: skip
    _write(folder / "tokenizer.json", data, indent=None)
    if tokenizer.model == "llama":
        (folder / "tokenizer.model").write_bytes(_sentencepiece(tokenizer, meta))
    _write(folder / "tokenizer_config.json", _config(tokenizer, meta, data["added_tokens"]))
    _write(folder / "special_tokens_map.json", _special_map(tokenizer))
    return _compare(meta, folder)


def _write(path: Path, value: Any, indent: int | None = 2) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=indent) + "\n", "utf-8")


def _compare(meta: TokenizerMetadata, folder: Path) -> list[str]:
    """Return a warning where the written tokenizer.json encodes differently."""
    import tokenizers

    backend: Any = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    difference = first_difference(
        meta.source, lambda text: backend.encode(text, add_special_tokens=False).ids
    )
    return [f"the exported tokenizer differs: {difference}"] if difference else []


def _is_padding(tokenizer: Tokenizer, token: int) -> bool:
    return tokenizer.types_in_file[token] == UNUSED or not tokenizer.tokens[token]


def _added_tokens(tokenizer: Tokenizer) -> list[dict[str, Any]]:
    kinds = (CONTROL, UNKNOWN, USER_DEFINED)
    return [
        {
            "id": i, "content": tokenizer.tokens[i], "single_word": False,
            "lstrip": i in tokenizer.strips_left, "rstrip": i in tokenizer.strips_right,
            "normalized": False, "special": kind != USER_DEFINED,
        }
        for i, kind in enumerate(tokenizer.types_in_file)
        if kind in kinds and tokenizer.tokens[i] and tokenizer.ids[tokenizer.tokens[i]] == i
    ]  # fmt: skip


def _vocab(tokenizer: Tokenizer) -> dict[str, int]:
    """Return all tokens but padding.

    Added tokens are among them: the tokenizers package gives others new ids, whatever they ask.
    """
    return {t: i for t, i in tokenizer.ids.items() if not _is_padding(tokenizer, i)}


def _special(tokenizer: Tokenizer, token: int) -> dict[str, Any]:
    return {"SpecialToken": {"id": tokenizer.tokens[token], "type_id": 0}}


def _post_processor(tokenizer: Tokenizer) -> dict[str, Any] | None:
    """Return what adds BOS and EOS (CLS and SEP for BERT) around texts."""
    first = tokenizer.bos_id if tokenizer.add_bos else None
    last = tokenizer.eos_id if tokenizer.add_eos else None
    if tokenizer.model == "bert":
        last = tokenizer.sep_id
    if first is None and last is None:
        if isinstance(tokenizer, ByteLevelTokenizer):
            return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False,
                    "use_regex": False}  # fmt: skip
        return None
    before = [] if first is None else [_special(tokenizer, first)]
    after = [] if last is None else [_special(tokenizer, last)]
    a, b = ({"Sequence": {"id": name, "type_id": i}} for i, name in enumerate("AB"))
    used = {tokenizer.tokens[i]: i for i in (first, last) if i is not None}
    return {
        "type": "TemplateProcessing",
        "single": [*before, a, *after],
        "pair": [*before, a, *after, *([] if after else before), b, *after],
        "special_tokens": {t: {"id": t, "ids": [i], "tokens": [t]} for t, i in used.items()},
    }


def _bpe_model(
    vocab: dict[str, int], merges: list[tuple[str, str]], **options: Any
) -> dict[str, Any]:
    known = [[a, b] for a, b in merges if a in vocab and b in vocab and a + b in vocab]
    return {
        "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
        "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
        "ignore_merges": False, **options, "vocab": vocab, "merges": known,
    }  # fmt: skip


def _gpt2(tokenizer: Tokenizer, meta: TokenizerMetadata) -> dict[str, Any]:
    pre = PRE_TOKENIZERS[tokenizer.pre]
    if not pre.byte_level:
        return _pieces(tokenizer, meta)
    splits = [
        {"type": "Split", "pattern": {"Regex": p}, "behavior": "Isolated", "invert": False}
        for p in pre.patterns
    ]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    last = {**byte_level, "use_regex": False}
    return {
        "normalizer": {"type": "NFC"} if meta.flag("normalizer.nfc", False) else None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [*splits, last]},
        "decoder": {**byte_level, "use_regex": True},
        "model": _bpe_model(_vocab(tokenizer), read_merges(meta), ignore_merges=pre.ignore_merges),
    }


def _spaces(prepend: bool) -> dict[str, Any]:
    """Return normalizer and decoder of pieces that write spaces as U+2581."""
    space = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    first = [{"type": "Prepend", "prepend": SPACE}] if prepend else []
    back = {"type": "Replace", "pattern": {"String": SPACE}, "content": " "}
    strip = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if prepend else []
    decoders = [back, {"type": "ByteFallback"}, {"type": "Fuse"}, *strip]
    return {
        "normalizer": {"type": "Sequence", "normalizers": [*first, space]},
        "decoder": {"type": "Sequence", "decoders": decoders},
    }


def _pieces(tokenizer: Tokenizer, meta: TokenizerMetadata) -> dict[str, Any]:
    model = _bpe_model(_vocab(tokenizer), read_merges(meta), byte_fallback=True, fuse_unk=True)
    newlines = {"type": "Split", "pattern": {"Regex": r"\n+"}, "behavior": "Isolated"}
    return {**_spaces(False), "pre_tokenizer": {**newlines, "invert": False}, "model": model}


def score_merges(tokenizer: Tokenizer, meta: TokenizerMetadata) -> list[tuple[str, str]]:
    """Return the merges that follow from piece scores: the best piece first, all its splits.

    The way transformers derives a fast tokenizer from a SentencePiece model.
    """
    scores = meta.numbers("scores", tokenizer.n_vocab, float)
    assert scores is not None
    vocab = _vocab(tokenizer)
    pieces = [t for t, i in vocab.items() if tokenizer.types_in_file[i] == NORMAL and len(t) > 1]
    order = scores.tolist()
    pieces.sort(key=lambda piece: (-order[vocab[piece]], vocab[piece]))
    return [
        (piece[:at], piece[at:])
        for piece in pieces
        for at in range(1, len(piece))
        if piece[:at] in vocab and piece[at:] in vocab
    ]


def _llama(tokenizer: Tokenizer, meta: TokenizerMetadata) -> dict[str, Any]:
    vocab, merges = _vocab(tokenizer), score_merges(tokenizer, meta)
    options: dict[str, Any] = {"byte_fallback": True, "fuse_unk": True}
    if tokenizer.unk_id is not None:
        options["unk_token"] = tokenizer.tokens[tokenizer.unk_id]
        vocab.setdefault(tokenizer.tokens[tokenizer.unk_id], tokenizer.unk_id)
    return {**_spaces(tokenizer.add_space_prefix), "model": _bpe_model(vocab, merges, **options)}


def _sentencepiece(tokenizer: Tokenizer, meta: TokenizerMetadata) -> bytes:
    """Return tokenizer.model: the pieces of the file as SentencePiece types them."""
    scores = meta.numbers("scores", tokenizer.n_vocab, float)
    assert scores is not None
    last = max(i for i in range(tokenizer.n_vocab) if not _is_padding(tokenizer, i)) + 1
    kinds = tokenizer.types_in_file[:last]
    pieces = distinct_pieces(
        tokenizer.tokens[:last], scores.tolist()[:last], kinds, tokenizer.unk_id
    )
    pieces = [
        (text, score, USER_DEFINED if kind == USER_DEFINED else piece_kind)
        for (text, score, piece_kind), kind in zip(pieces, [*kinds, UNKNOWN], strict=False)
    ]
    n_bytes = sum(kind == BYTE for _, _, kind in pieces)
    return build_model(
        pieces,
        byte_fallback=n_bytes == 256,
        unk_id=next(i for i, piece in enumerate(pieces) if piece[2] == UNKNOWN),
        add_dummy_prefix=tokenizer.add_space_prefix,
        remove_extra_whitespaces=tokenizer.remove_extra_whitespaces,
    )


def _unigram(tokenizer: Tokenizer, meta: TokenizerMetadata) -> dict[str, Any]:
    scores = meta.numbers("scores", tokenizer.n_vocab, float)
    assert scores is not None
    pieces = list(zip(tokenizer.tokens, scores.tolist(), strict=True))
    normalizers: list[dict[str, Any]] = []
    splits: list[dict[str, Any]] = []
    if (table := meta.source.get("tokenizer.ggml.precompiled_charsmap")) is not None:
        text = base64.b64encode(np.asarray(table).astype(np.uint8).tobytes()).decode()
        normalizers.append({"type": "Precompiled", "precompiled_charsmap": text})
    if tokenizer.remove_extra_whitespaces:
        normalizers.append({"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "})
        splits.append({"type": "WhitespaceSplit"})
    scheme = "always" if tokenizer.add_space_prefix else "never"
    spaces = {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": scheme, "split": True}
    return {
        "normalizer": {"type": "Sequence", "normalizers": normalizers} if normalizers else None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [*splits, spaces]},
        "decoder": spaces,
        "model": {"type": "Unigram", "unk_id": tokenizer.unk_id, "vocab": pieces,
                  "byte_fallback": BYTE in tokenizer.types_in_file},
    }  # fmt: skip


def _bert(tokenizer: Tokenizer, meta: TokenizerMetadata) -> dict[str, Any]:
    vocab: dict[str, int] = {}
    for i, (text, kind) in enumerate(zip(tokenizer.tokens, tokenizer.types_in_file, strict=True)):
        if kind == NORMAL:
            text = text.removeprefix(SPACE) if text.startswith(SPACE) else "##" + text
        vocab.setdefault(text, i)
    lower = meta.flag("normalizer.lowercase", True)
    assert tokenizer.unk_id is not None
    return {
        "normalizer": {"type": "BertNormalizer", "clean_text": True, "lowercase": lower,
                       "handle_chinese_chars": True,
                       "strip_accents": meta.flag("normalizer.strip_accents", lower)},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {"type": "WordPiece", "unk_token": tokenizer.tokens[tokenizer.unk_id],
                  "continuing_subword_prefix": "##", "max_input_chars_per_word": 100,
                  "vocab": vocab},
    }  # fmt: skip


BUILDERS: dict[str, Callable[[Tokenizer, TokenizerMetadata], dict[str, Any]]] = {
    "gpt2": _gpt2, "llama": _llama, "gemma4": _pieces, "bert": _bert,
    "t5": _unigram,
}  # fmt: skip


def _special_map(tokenizer: Tokenizer) -> dict[str, str]:
    found = {name: getattr(tokenizer, attribute) for name, attribute in NAMES}
    return {f"{n}_token": tokenizer.tokens[i] for n, i in found.items() if i is not None}


def _config(
    tokenizer: Tokenizer, meta: TokenizerMetadata, added: list[dict[str, Any]]
) -> dict[str, Any]:
    decoder = {str(t["id"]): {k: v for k, v in t.items() if k != "id"} for t in added}
    config: dict[str, Any] = {
        "add_bos_token": tokenizer.add_bos, "add_eos_token": tokenizer.add_eos,
        "added_tokens_decoder": decoder, "clean_up_tokenization_spaces": False,
        "tokenizer_class": "PreTrainedTokenizerFast", **_special_map(tokenizer),
    }  # fmt: skip
    if "add_space_prefix" in meta:
        config["add_prefix_space"] = tokenizer.add_space_prefix
    if (template := _templates(meta)) is not None:
        config["chat_template"] = template
    return config


def _templates(meta: TokenizerMetadata) -> str | list[dict[str, str]] | None:
    """Return the chat template, or a list of named ones."""
    key = "tokenizer.chat_template"
    default = meta.source.get(key)
    named = [
        {"name": name.removeprefix(key + "."), "template": text}
        for name, text in meta.source.items()
        if name.startswith(key + ".")
    ]
    if named and isinstance(default, str):
        named.insert(0, {"name": "default", "template": default})
    return named or (default if isinstance(default, str) else None)
