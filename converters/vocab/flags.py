"""Flags of added tokens that GGUF has no keys for: whoever converts is told.

transformers lets such a token swallow the white space beside it, or be found only as a whole word;
runtimes of GGUF files know that of a few models by their names (tokenizers/specials.py).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ggq.converters.vocab.tokenizer_files import TokenizerFiles, content
from ggq.errors import printable
from ggq.runtime.tokenizers.specials import strip_rules

__all__ = ["lost_flags"]

_EFFECTS = {
    "lstrip": "swallow the white space before them",
    "rstrip": "swallow the white space after them",
    "single_word": "are found only as whole words",
    "normalized": "are looked for in the normalized text",
}
_SHOWN = 3


def lost_flags(
    files: TokenizerFiles, arch: str | None, pre: str, tokens: Sequence[str]
) -> list[str]:
    """Return a line for each flag that tokens of the folder carry and the file cannot."""
    ids = {text: i for i, text in enumerate(tokens)}
    left, right = strip_rules(arch or "", arch or "", pre, ids, list(ids.values()))
    known = {"lstrip": left, "rstrip": right}
    lines = []
    for flag, effect in _EFFECTS.items():
        texts = [t for t in _flagged(files, flag) if ids.get(t) not in known.get(flag, ())]
        if flag == "normalized":
            texts = _altered(files, texts)
        if texts:
            shown = ", ".join(repr(printable(text)) for text in texts[:_SHOWN])
            more = f" and {len(texts) - _SHOWN} more" if len(texts) > _SHOWN else ""
            lines.append(
                f"added tokens {shown}{more} {effect} in transformers ({flag}): GGUF has no key"
                " for it, text beside them may be encoded otherwise"
            )
    return lines


def _flagged(files: TokenizerFiles, flag: str) -> list[str]:
    decoder = files.config.get("added_tokens_decoder")
    entries = [*(files.json.get("added_tokens") or ())]
    entries += decoder.values() if isinstance(decoder, dict) else ()
    return list(dict.fromkeys(_texts(entries, flag)))


def _altered(files: TokenizerFiles, texts: Sequence[str]) -> list[str]:
    """Return the texts that the folder's normalizer changes, or reads in other letters, too."""
    normalizer = files.json.get("normalizer")
    if not normalizer or not texts:
        return []
    from tokenizers import Tokenizer

    model = {"type": "BPE", "vocab": {}, "merges": []}
    bare = {"version": "1.0", "added_tokens": [], "normalizer": normalizer, "model": model}
    try:
        read = Tokenizer.from_str(json.dumps(bare)).normalizer.normalize_str
    except Exception:  # of a kind that the library does not know: it says so where it is read
        return []
    cases = [(t, t.upper(), t.lower()) for t in texts]
    return [case[0] for case in cases if set(map(read, case)) != set(case)]


def _texts(entries: Sequence[Any], flag: str) -> list[str]:
    flagged = [e for e in entries if isinstance(e, Mapping) and e.get(flag) is True]
    return [text for entry in flagged if (text := content(entry))]
