"""From the tokenizer of a Hugging Face folder to GGUF keys.

``read_vocab`` chooses the family, recognises the pre-tokenizer, and checks the result against the
folder's own tokenizer. The way back, ``write_vocab``, is in write.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ggq import models
from ggq.converters.vocab import tokens as vocab_tokens
from ggq.converters.vocab import unigram
from ggq.converters.vocab.compare import first_difference
from ggq.converters.vocab.flags import lost_flags
from ggq.converters.vocab.pre_tokenizer import recognize
from ggq.converters.vocab.special_tokens import (
    PREFIX,
    MetadataItem,
    Specials,
    normalizer_items,
    template_items,
)  # fmt: skip
from ggq.converters.vocab.tokenizer_files import TokenizerFiles
from ggq.errors import FormatError, ModelError, UsageError, known_names, option, printable
from ggq.gguf import spec
from ggq.models.vocabulary import Vocabulary
from ggq.runtime.tokenizers.pre_tokenizers import PRE_TOKENIZERS

__all__ = ["MetadataItem", "Vocab", "read_vocab"]


class Vocab(list[MetadataItem]):
    """The keys of a tokenizer; ``warnings`` says in words what a person should look at."""

    def __init__(self, items: list[MetadataItem], warnings: list[str]) -> None:
        super().__init__(items)
        self.warnings = warnings


def read_vocab(
    folder: Path,
    n_vocab: int | None = None,
    arch: str | None = None,
    pre: str | None = None,
    check: bool = True,
) -> Vocab:
    """Return the tokenizer keys for a folder, padded to ``n_vocab`` tokens.

    ``arch`` is the GGUF architecture, which settles what files leave open; ``pre`` overrides the
    recognised pre-tokenizer; ``check`` compares with the folder's own tokenizer. Raises
    FormatError for malformed files, ModelError for a tokenizer that has no GGUF form, UsageError
    for an unknown ``pre``.
    """
    if pre is not None and pre not in PRE_TOKENIZERS:
        raise UsageError(
            f"{option('--pre', 'pre')} {printable(pre)}: {known_names(pre, PRE_TOKENIZERS)}"
        )
    files = TokenizerFiles(Path(folder))
    try:
        items = _type_count(files, arch) + _builder(files, arch)(files, n_vocab, arch, pre)
        items += _common(files, items)
        plain = {item.key: item.value for item in items}
        pre_id = str(plain.get(PREFIX + "pre", ""))
        files.warnings += lost_flags(files, arch, pre_id, plain[PREFIX + "tokens"])
        reference = _reference(files) if check else None
    except (AttributeError, TypeError, KeyError, IndexError, ValueError) as error:
        raise FormatError(f"{folder}: malformed tokenizer files: {printable(error)}") from error
    if reference and (difference := first_difference(plain, reference)):
        files.warnings.append(f"the GGUF tokenizer differs from the folder's own: {difference}")
    return Vocab(items, files.warnings)


Builder = Callable[[TokenizerFiles, "int | None", "str | None", "str | None"], list[MetadataItem]]


def _rules(arch: str | None) -> Vocabulary:
    """Return what the architecture settles; nothing where none is given or it is not known."""
    known = {found.name: found.vocab for found in models.all_architectures()}
    return known.get(arch or "", Vocabulary())


def _builder(files: TokenizerFiles, arch: str | None) -> Builder:
    """Return the function that builds this folder's kind of vocabulary."""
    family = _rules(arch).family
    if family and files.json:
        return FAMILIES[family]
    if files.json and files.model.get("type") == "Unigram":
        return _unigram
    if files.sentencepiece and _is_sentencepiece(files):
        return _spm
    if not files.json:
        what = "neither tokenizer.json nor tokenizer.model, tekken.json, vocab.txt or vocab.json"
        raise FormatError(f"{files.folder}: {what} with merges.txt")
    kind = files.model.get("type")
    if kind == "WordPiece" or (kind is None and "continuing_subword_prefix" in files.model):
        return _wordpiece
    if kind == "BPE":
        _check_bpe(files)
        return _fast_spm if files.model.get("byte_fallback") and not _of_bytes(files) else _gpt2
    raise ModelError(
        f"{files.folder / 'tokenizer.json'}: a {printable(kind)} tokenizer is not supported "
        "(BPE, WordPiece, Unigram and SentencePiece BPE are)"
    )


def _check_bpe(files: TokenizerFiles) -> None:
    """Refuse BPE whose tokens are written otherwise within a word: GGUF cannot say so."""
    for name in ("end_of_word_suffix", "continuing_subword_prefix"):
        if value := files.model.get(name):
            what = f"BPE with {name} {printable(repr(value), 40)} has no GGUF form"
            raise ModelError(f"{files.folder / 'tokenizer.json'}: {what}")
    if files.model.get("dropout"):
        what = f"dropout {printable(files.model['dropout'], 40)} is left out: it is for training"
        files.warnings.append(f"tokenizer.json: {what}")


def _of_bytes(files: TokenizerFiles) -> bool:
    """Return whether bytes become letters before merges, so that none is left to fall back to."""
    step = files.json.get("pre_tokenizer") or {}
    return any(one.get("type") == "ByteLevel" for one in (step, *step.get("pretokenizers", ())))


def _is_sentencepiece(files: TokenizerFiles) -> bool:
    """Return whether tokenizer.model is what its name says; else tokenizer.json must serve."""
    try:
        vocab_tokens.load_sentencepiece(files)
    except FormatError as error:
        if not files.json:
            raise
        files.warnings.append(f"{error}; tokenizer.json is used")
        return False
    return True


def _common(files: TokenizerFiles, items: list[MetadataItem]) -> list[MetadataItem]:
    """Return special ids, flags, templates and normalizer keys that every family has."""
    tokens = next(item.value for item in items if item.key == PREFIX + "tokens")
    specials = Specials(files)
    specials.resolve(tokens)
    chosen = next((i.value for i in items if i.key == PREFIX + "pre"), None)
    if chosen in PRE_TOKENIZERS and PRE_TOKENIZERS[chosen].add_bos:
        specials.add.setdefault("bos", False)  # the id alone would mean that BOS is added
    taken = {item.key for item in items}
    found = specials.items() + template_items(files) + normalizer_items(files)
    return [item for item in found if item.key not in taken]


def _items(
    model: str, pre: str | None, tokens: vocab_tokens.TokenList, merges: list[str] | None = None
) -> list[MetadataItem]:
    out = [MetadataItem(PREFIX + "model", model, spec.STR)]
    if pre is not None:
        out.append(MetadataItem(PREFIX + "pre", pre, spec.STR))
    out.append(MetadataItem(PREFIX + "tokens", tokens.texts, spec.STR))
    if tokens.scores is not None:
        out.append(MetadataItem(PREFIX + "scores", tokens.scores, spec.F32))
    out.append(MetadataItem(PREFIX + "token_type", tokens.types, spec.I32))
    if merges is not None:
        out.append(MetadataItem(PREFIX + "merges", merges, spec.STR))
    return out


def _type_count(files: TokenizerFiles, arch: str | None) -> list[MetadataItem]:
    """Return how many kinds of parts a text has, which files of encoders say here."""
    if not _rules(arch).counts_types:
        return []
    count = models.get(arch or "").config(files.model_config).get("type_vocab_size")
    return [MetadataItem(PREFIX + "token_type_count", count or 1, spec.U32)]


def _flag(name: str, value: bool) -> MetadataItem:
    return MetadataItem(PREFIX + name, value, spec.BOOL)


def _gpt2(
    files: TokenizerFiles, n_vocab: int | None, arch: str | None, pre: str | None
) -> list[MetadataItem]:
    nfc = False
    if pre is None:
        found = recognize(files.json, arch)
        pre, nfc = found.id, found.nfc
        files.warnings += found.warnings
    tokens = vocab_tokens.bpe_tokens(files, n_vocab)
    items = _items("gpt2", pre, tokens, vocab_tokens.merge_strings(files))
    items += _prefix_from_config(files, arch)
    if n_vocab in _rules(arch).no_bos_sizes:
        items.append(_flag("add_bos_token", False))
    if nfc:  # our own key: other readers leave decomposed characters as they are
        items.append(_flag("normalizer.nfc", True))
    return items


def _prefix_from_config(files: TokenizerFiles, arch: str | None) -> list[MetadataItem]:
    """Return add_space_prefix as llama-like folders state it; other families never mean it."""
    value = files.config.get("add_prefix_space") if _rules(arch).states_prefix else None
    return [_flag("add_space_prefix", value)] if isinstance(value, bool) else []


def _spm(
    files: TokenizerFiles, n_vocab: int | None, arch: str | None, pre: str | None
) -> list[MetadataItem]:
    tokens, flags = vocab_tokens.spm_tokens(files, n_vocab)
    items = _items("llama", "default", tokens)
    prefix = _prefix_from_config(files, arch)
    if not prefix and not flags["add_dummy_prefix"]:
        prefix = [_flag("add_space_prefix", False)]
    items += prefix
    if flags["remove_extra_whitespaces"]:
        items.append(_flag("remove_extra_whitespaces", True))
    return items


def _fast_spm(
    files: TokenizerFiles, n_vocab: int | None, arch: str | None, pre: str | None
) -> list[MetadataItem]:
    tokens = vocab_tokens.fast_spm_tokens(files, n_vocab)
    text = str((files.json.get("normalizer"), files.json.get("pre_tokenizer")))
    prepends = "'Prepend'" in text or "'prepend_scheme': 'first'" in text
    prepends = prepends or "'prepend_scheme': 'always'" in text
    items = _items("llama", "default", tokens)
    return items if prepends else [*items, _flag("add_space_prefix", False)]


def _gemma4(
    files: TokenizerFiles, n_vocab: int | None, arch: str | None, pre: str | None
) -> list[MetadataItem]:
    tokens = vocab_tokens.gemma4_tokens(files, n_vocab)
    items = _items("gemma4", None, tokens, vocab_tokens.merge_strings(files))
    return [*items, _flag("add_space_prefix", False), _flag("add_bos_token", True)]


def _unigram(
    files: TokenizerFiles, n_vocab: int | None, arch: str | None, pre: str | None
) -> list[MetadataItem]:
    table, single = unigram.charsmap(files)
    found = unigram.spaces(files, single)
    items = _items("t5", pre or "default", unigram.unigram_tokens(files, n_vocab))
    items.append(_flag("add_space_prefix", found.prefix))
    items.append(_flag("remove_extra_whitespaces", found.single))
    if table is not None:
        items.append(MetadataItem(PREFIX + "precompiled_charsmap", table, spec.U8))
    return items


def _wordpiece(
    files: TokenizerFiles, n_vocab: int | None, arch: str | None, pre: str | None
) -> list[MetadataItem]:
    tokens = vocab_tokens.wordpiece_tokens(files, n_vocab)
    return _items("bert", pre or "bert-bge", tokens)


FAMILIES: dict[str, Builder] = {"gemma4": _gemma4}  # that an architecture may ask for by name


def _reference(files: TokenizerFiles) -> Callable[[str], list[int]] | None:
    """Return the folder's own tokenizer as a function, None (and a warning) if it cannot load."""
    if files.sentencepiece and not files.json:
        return vocab_tokens.load_sentencepiece(files).EncodeAsIds
    import tokenizers

    try:
        backend: Any = (
            tokenizers.Tokenizer.from_str(json.dumps(files.json))
            if files.is_made
            else tokenizers.Tokenizer.from_file(str(files.folder / "tokenizer.json"))
        )
    except Exception as error:  # the Rust side raises bare Exception
        files.warnings.append(f"tokenizer.json was not compared: {printable(error)}")
        return None
    backend.no_truncation()  # as transformers, which cuts and pads when asked to
    backend.no_padding()
    if getattr(backend.model, "dropout", None):
        backend.model.dropout = None
    return lambda text: backend.encode(text, add_special_tokens=False).ids
