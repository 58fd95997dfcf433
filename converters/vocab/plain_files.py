"""Tokenizers in the files of before tokenizer.json, brought to its form: vocab.json with merges.txt
(GPT-2, RoBERTa, Qwen) and vocab.txt (BERT).

What such files leave to a class of transformers is told here per class; others need --pre.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ggq.errors import FormatError, printable, reason
from ggq.models import class_names
from ggq.runtime.tokenizers.pre_tokenizers import PRE_TOKENIZERS

__all__ = ["MERGES", "VOCAB", "WORDS", "bpe", "defaults", "word_piece"]

VOCAB, MERGES, WORDS = "vocab.json", "merges.txt", "vocab.txt"
MAX_TEXT = 100_000_000


@dataclass(frozen=True)
class Class:
    """What a tokenizer class adds to its files: special tokens, the split, what goes around."""

    special: Mapping[str, str]
    pre: str = "gpt-2"
    nfc: bool = False
    around: bool = False  # <s> text </s>


_END = "<|endoftext|>"
_ROBERTA = {
    **{"bos": "<s>", "eos": "</s>", "unk": "<unk>", "pad": "<pad>"},
    **{"cls": "<s>", "sep": "</s>", "mask": "<mask>"},
}
GPT2 = Class({"bos": _END, "eos": _END, "unk": _END})
CLASSES = {
    **dict.fromkeys(("GPT2Tokenizer", "CodeGenTokenizer", "GPTNeoXTokenizer"), GPT2),
    **dict.fromkeys(("RobertaTokenizer", "BartTokenizer"), Class(_ROBERTA, around=True)),
    "Qwen2Tokenizer": Class({"eos": _END, "pad": _END}, "qwen2", nfc=True),
}
# The class of a model that names none, by how its own class begins.
OF_MODELS = {"Qwen2": "Qwen2Tokenizer", "Qwen3": "Qwen2Tokenizer", "GPT2": "GPT2Tokenizer"}
OF_MODELS |= {"Roberta": "RobertaTokenizer", "GPTBigCode": "GPT2Tokenizer"}
OF_MODELS |= {"Phi": "CodeGenTokenizer", "GPTNeoX": "GPTNeoXTokenizer"}
BERT = {"unk": "[UNK]", "sep": "[SEP]", "pad": "[PAD]", "cls": "[CLS]", "mask": "[MASK]"}


def _class(config: Mapping[str, Any], model_config: Mapping[str, Any]) -> Class | None:
    """Return the tokenizer's class as the folder tells it; None: one that is not known here."""
    name = str(config.get("tokenizer_class") or model_config.get("tokenizer_class") or "")
    if not name:
        for model in class_names(model_config):
            name = next((OF_MODELS[m] for m in OF_MODELS if model.startswith(m)), name)
    return CLASSES.get(name.removesuffix("Fast"))


def defaults(
    folder: Path, config: Mapping[str, Any], model_config: Mapping[str, Any]
) -> dict[str, str]:
    """Return the special tokens that the class has where tokenizer_config.json names none."""
    if (folder / VOCAB).is_file() and (folder / MERGES).is_file():
        found = _class(config, model_config)
        return {f"{name}_token": text for name, text in (found.special if found else {}).items()}
    if (folder / WORDS).is_file():
        return {f"{name}_token": text for name, text in BERT.items()}
    return {}


def bpe(
    folder: Path, vocab: Mapping[str, Any], config: Mapping[str, Any], model: Mapping[str, Any]
) -> dict[str, Any]:
    """Return tokenizer.json for vocab.json and merges.txt; FormatError.

    ``vocab``: vocab.json; ``config``: tokenizer_config.json, ``model``: config.json.
    """
    merges = [line for line in _lines(folder / MERGES) if line and not line.startswith("#version")]
    for number, line in enumerate(merges):
        if len(line.split(" ")) != 2:
            raise FormatError(f"{printable(folder / MERGES)}: merge {number} is not a pair")
    made: dict[str, Any] = {"model": {"type": "BPE", "vocab": dict(vocab), "merges": merges}}
    found = _class(config, model)
    if found is None:  # what it splits at is not known: --pre may say it
        return made
    pattern = PRE_TOKENIZERS[found.pre].patterns[0]
    made["pre_tokenizer"] = splitting(pattern)
    made["normalizer"] = {"type": "NFC"} if found.nfc else None
    if found.around:
        ends = [[text, vocab.get(text, 0)] for text in ("</s>", "<s>")]
        made["post_processor"] = {
            **{"type": "RobertaProcessing", "sep": ends[0], "cls": ends[1]},
            **{"trim_offsets": True, "add_prefix_space": False},
        }
    return made


def splitting(pattern: str) -> dict[str, Any]:
    """Return a pre_tokenizer that splits at ``pattern`` and writes bytes as letters."""
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated"}
    letters = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}
    letters["trim_offsets"] = True
    return {"type": "Sequence", "pretokenizers": [split | {"invert": False}, letters]}


def word_piece(folder: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return tokenizer.json for vocab.txt, a word piece on each line; FormatError."""
    words = _lines(folder / WORDS)
    while words and not words[-1]:
        words.pop()
    vocab = {word: number for number, word in enumerate(words)}
    if len(vocab) != len(words):
        raise FormatError(f"{printable(folder / WORDS)}: a word piece is there twice")
    lower = config.get("do_lower_case", True) is not False
    normalizer: dict[str, Any] = {"type": "BertNormalizer", "clean_text": True, "lowercase": lower}
    normalizer["handle_chinese_chars"] = config.get("tokenize_chinese_chars", True) is not False
    normalizer["strip_accents"] = config.get("strip_accents")
    ends = {text: {"id": text, "ids": [vocab.get(text, 0)], "tokens": [text]} for text in _AROUND}
    model: dict[str, Any] = {"type": "WordPiece", "vocab": vocab, "unk_token": BERT["unk"]}
    model |= {"continuing_subword_prefix": "##", "max_input_chars_per_word": 100}
    return {
        "model": model,
        "normalizer": normalizer,
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            **{"type": "TemplateProcessing", "special_tokens": ends},
            **{"single": _around(("A", 0)), "pair": _around(("A", 0), ("B", 1))},
        },
    }


_AROUND = ("[CLS]", "[SEP]")


def _around(*texts: tuple[str, int]) -> list[dict[str, Any]]:
    """Return a template: [CLS], and each text with [SEP] after it."""
    made = [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}]
    for name, kind in texts:
        made.append({"Sequence": {"id": name, "type_id": kind}})
        made.append({"SpecialToken": {"id": "[SEP]", "type_id": kind}})
    return made


def _lines(path: Path) -> list[str]:
    """Return a file's lines; FormatError."""
    try:
        if path.stat().st_size > MAX_TEXT:
            raise FormatError(f"{printable(path)}: larger than {MAX_TEXT} bytes")
        return path.read_text("utf-8").replace("\r\n", "\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise FormatError(f"{printable(path)}: cannot be read: {reason(error)}") from None
