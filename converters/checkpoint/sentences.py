"""What a sentence-transformers folder says beside its model: pooling, further modules, lengths.

It knows which of that a GGUF file can say; what cannot be said is refused or told.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ggq.converters.checkpoint.json_files import read_json
from ggq.errors import FormatError, ModelError, printable
from ggq.models.decoder import POOLING

__all__ = ["sentence_settings"]

POOLINGS = {  # llama.cpp's number: sentence-transformers' names, new and old
    1: ("mean", "pooling_mode_mean_tokens"),
    2: ("cls", "pooling_mode_cls_token"),
    3: ("lasttoken", "pooling_mode_lasttoken"),
}
FOLLOWED = ("Transformer", "Pooling", "Normalize", "Dropout")  # dropout: only training asks for it


def sentence_settings(folder: Path) -> tuple[dict[str, int], list[str]]:
    """Return a folder's pooling as GGUF numbers it, and what its user has to be told.

    ModelError for a module that is not converted, FormatError for a pooling that has no number.
    """
    for module in read_json(folder / "modules.json", kind=list):
        said = module if isinstance(module, dict) else {}
        kind = str(said.get("type", "")).rpartition(".")[2]
        if kind not in FOLLOWED:
            where = printable(said.get("path") or kind)
            what = f"modules.json: {where} is a {printable(kind)} module of sentence-transformers"
            raise ModelError(f"{what}, which is not converted: {', '.join(FOLLOWED[:3])} are")
    return _pooling(folder), _notes(folder)


def _pooling(folder: Path) -> dict[str, int]:
    for path in sorted(folder.glob("[0-9]*_Pooling/config.json")):
        said = read_json(path)
        modes = [n for n in said if n.startswith("pooling_mode_") and said[n] is True]
        for number, names in POOLINGS.items():
            if said.get("pooling_mode") == names[0] or modes == [names[1]]:
                return {POOLING: number}
        raise FormatError(f"{printable(path)}: only mean, cls and lasttoken pooling are supported")
    return {}


def _notes(folder: Path) -> list[str]:
    """Return how its texts have to be given for the vectors that sentence-transformers makes."""
    name, notes = "sentence_bert_config.json", []
    said, positions = read_json(folder / name), _positions(folder)
    longest = said.get("max_seq_length")
    if isinstance(longest, int) and 0 < longest < positions:
        what = f"{name}: sentence-transformers cuts texts to {longest} tokens, ggq does not"
        notes.append(f"{what}: model.embed(texts, truncate={longest}) does")
    if said.get("do_lower_case") is True and not _lowers(folder):
        notes.append(f"{name}: do_lower_case is true: give texts in lower case")
    return notes


def _positions(folder: Path) -> int:
    given: Any = read_json(folder / "config.json").get("max_position_embeddings")
    return given if isinstance(given, int) else 0


def _lowers(folder: Path) -> bool:
    """Tell whether the tokenizer makes lower case of its texts by itself."""
    return read_json(folder / "tokenizer_config.json").get("do_lower_case") is True
