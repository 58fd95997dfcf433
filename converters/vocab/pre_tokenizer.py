"""Which ``tokenizer.ggml.pre`` a tokenizer.json asks for, by its structure.

Split patterns, digits and byte-level steps are brought to one form and compared with the table of
pre-tokenizers; no text is hashed. It does not know files or vocabularies.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from ggq.errors import ModelError, option, printable
from ggq.runtime.tokenizers.pre_tokenizers import (
    BLOOM,
    CONTRACTIONS,
    DIGIT,
    GPT2,
    PRE_TOKENIZERS,
)  # fmt: skip

SPELLED_CONTRACTIONS = (
    "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])",
    "'(?i:[sdmt]|ll|ve|re)",
    "'(?:[sSdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])",
    "(?i:'s|'t|'re|'ve|'m|'d|'ll)",
)
PUNCTUATION_RUNS = r"[\p{P}\$\+<=>\^~\|`]+"
# The same split in other words: what tokenizer.json says -> what the table has.
SAME_STEPS = {
    r" ?[^(\s|[.,!?…。，、।۔،])]+": (BLOOM,),
}
SAME_SEQUENCES = {(PUNCTUATION_RUNS, GPT2, r"\p{N}+", "[0-9][0-9][0-9]"): "default"}
# Ids that mean one and the same split: the one that each architecture's files carry.
USUAL_ID = {
    "granite": "refact", "granitemoe": "refact", "starcoder2": "starcoder", "phi2": "phi-2",
    "starcoder": "starcoder",
    "command-r": "command-r", "cohere2": "command-r", "exaone": "exaone", "olmo": "olmo",
    "olmo2": "olmo", "mpt": "mpt", "glm4": "glm4", "glm4moe": "glm4", "chatglm": "glm4",
    "llama4": "llama4", "falcon-h1": "falcon-h1", "lfm2": "lfm2", "lfm2moe": "lfm2",
    "hunyuan-dense": "hunyuan-dense", "minimax-m2": "minimax-m2", "stablelm": "stablelm2",
    "jais": "jais", "refact": "refact", "codeshell": "codeshell", "exaone4": "exaone4",
    "dbrx": "dbrx", "gpt-oss": "gpt-4o", "modern-bert": "modern-bert", "cohere2moe": "cohere2moe",
}  # fmt: skip
FIRST_CHOICE = ("llama-bpe", "dbrx", "qwen2", "smollm", "gpt-2", "gpt-4o", "deepseek-v3",
                "tiny_aya", "bloom", "bailingmoe", "glm4")  # fmt: skip


class Recognized(NamedTuple):
    """A pre-tokenizer id, whether text is brought to NFC first, and doubts in words."""

    id: str
    nfc: bool
    warnings: tuple[str, ...] = ()


def canonical(pattern: str) -> str:
    """Return a regular expression in one spelling of those that mean the same."""
    text = pattern.replace("\r", r"\r").replace("\n", r"\n").replace(r"\"", '"')
    for spelled in SPELLED_CONTRACTIONS:
        text = text.replace(spelled, CONTRACTIONS)
    return re.sub(r"([?+*])\+", r"\1", text).replace("{1}", "")  # possessive: same words here


def steps(pre_tokenizer: Mapping[str, Any] | None) -> tuple[str, ...]:
    """Return the patterns of a tokenizer.json's pre_tokenizer, in canonical form.

    Raises ModelError for a step that has no pattern here.
    """
    if not pre_tokenizer:
        return ()
    kind = pre_tokenizer.get("type")
    if kind == "Sequence":
        parts = pre_tokenizer.get("pretokenizers") or ()
        found = tuple(step for part in parts for step in steps(part))
        return (SAME_SEQUENCES[found],) if found in SAME_SEQUENCES else found
    if kind == "ByteLevel":
        return (canonical(GPT2),) if pre_tokenizer.get("use_regex", True) else ()
    if kind == "Digits":
        return (DIGIT if pre_tokenizer.get("individual_digits") else r"\p{N}+",)
    if kind == "Punctuation" and pre_tokenizer.get("behavior") == "Contiguous":
        return (PUNCTUATION_RUNS,)
    if kind == "Split":
        return _split(pre_tokenizer)
    raise ModelError(f"tokenizer.json: pre_tokenizer step '{printable(kind)}' has no GGUF form")


def _split(step: Mapping[str, Any]) -> tuple[str, ...]:
    pattern = step.get("pattern") or {}
    behavior, invert = step.get("behavior"), bool(step.get("invert"))
    # "Removed" of what does not match equals "Isolated" where the pattern matches everything.
    if (behavior, invert) not in (("Isolated", False), ("Removed", True)):
        raise ModelError(
            f"tokenizer.json: Split behaviour '{printable(behavior)}' has no GGUF form"
        )
    if "Regex" in pattern:
        text = canonical(str(pattern["Regex"]))
        return SAME_STEPS.get(text, (text,))
    return (canonical(re.escape(str(pattern.get("String", "")))),)


def _normalizes_to_nfc(normalizer: Mapping[str, Any] | None) -> bool:
    """Return whether the normalizer is NFC; ModelError where it is anything but NFC or nothing."""
    if not normalizer:
        return False
    kind = normalizer.get("type")
    if kind == "Sequence":
        parts = [_normalizes_to_nfc(part) for part in normalizer.get("normalizers") or ()]
        return True in parts
    if kind == "NFC":
        return True
    raise ModelError(f"tokenizer.json: normalizer '{printable(kind)}' has no GGUF form")


def recognize(tokenizer_json: Mapping[str, Any], arch: str | None = None) -> Recognized:
    """Return the id whose table entry splits text as ``tokenizer_json`` does.

    Raises ModelError with the patterns and the nearest id where there is none.
    """
    found = steps(tokenizer_json.get("pre_tokenizer"))
    ignore = bool((tokenizer_json.get("model") or {}).get("ignore_merges"))
    nfc = _normalizes_to_nfc(tokenizer_json.get("normalizer"))
    if len(found) == 1 and found[0] in PRE_TOKENIZERS:  # a sequence known as a whole
        return Recognized(found[0], nfc)
    same = [
        name
        for name, pre in PRE_TOKENIZERS.items()
        if pre.byte_level and tuple(map(canonical, pre.patterns)) == found
    ]
    if not same:
        raise _unknown(found)
    exact = [name for name in same if PRE_TOKENIZERS[name].ignore_merges == ignore]
    usual = _preferred(exact, arch)
    older = _preferred(same, arch) if usual is None else None
    # Every reader knows it, and where merges reach each token the flag changes nothing.
    if older and (older == USUAL_ID.get(arch or "") or _merges_reach_all(tokenizer_json)):
        return Recognized(older, nfc)
    warnings: tuple[str, ...] = ()
    if not exact:
        warnings = (f"no known pre-tokenizer has this pattern with ignore_merges {ignore}",)
    return Recognized(usual or _usual(exact or same, arch), nfc, warnings)


def _merges_reach_all(tokenizer_json: Mapping[str, Any]) -> bool:
    """Return whether merging alone makes each token of its own characters."""
    model = tokenizer_json.get("model") or {}
    if not model.get("vocab"):
        return True
    from tokenizers import Tokenizer

    bare = {"version": "1.0", "added_tokens": [], "model": {**model, "ignore_merges": False}}
    merging = Tokenizer.from_str(json.dumps(bare))
    added = {entry.get("content") for entry in tokenizer_json.get("added_tokens") or ()}
    texts = [text for text in model["vocab"] if text not in added]
    return all(len(one.ids) == 1 for one in merging.encode_batch(texts))


def _preferred(names: list[str], arch: str | None) -> str | None:
    """Return the id that this architecture's files carry, or one that readers knew early."""
    wanted = (USUAL_ID.get(arch or "", ""), *FIRST_CHOICE)
    return next((name for name in wanted if name in names), None)


def _usual(names: list[str], arch: str | None) -> str:
    """Return the id to write of several that split alike."""
    return _preferred(names, arch) or names[0]


def _unknown(found: tuple[str, ...]) -> ModelError:
    text = " | ".join(found) or "(none)"
    known: dict[str, list[str]] = {}
    for name, pre in PRE_TOKENIZERS.items():
        if pre.patterns:
            known.setdefault("".join(map(canonical, pre.patterns)), []).append(name)
    near = difflib.get_close_matches("".join(found), known, n=1, cutoff=0.0)
    return ModelError(
        f"tokenizer.json: unknown pre-tokenizer {printable(text, 400)}; the nearest known is "
        f"'{_usual(known[near[0]], None)}': name one with {option('--pre')}"
    )
