"""Prompts for what stands between two texts, of models that were trained to fill gaps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ggq.runtime.server.errors import APIError
from ggq.runtime.server.service import Service
from ggq.runtime.tokenizers.specials import FILL_IN_THE_MIDDLE

__all__ = ["fills_gaps", "infill_ids"]

_OLDER = {"fim_pre": "prefix", "fim_suf": "suffix", "fim_mid": "middle"}
_NEEDED = tuple(_OLDER)


def _marks(metadata: Any, ids: Any) -> dict[str, int]:
    """Return the token ids of the marks, by fim_pre, fim_suf, fim_mid, fim_rep and fim_sep."""
    found: dict[str, int] = {}
    for key, names in FILL_IN_THE_MIDDLE.items():
        mark = key.removesuffix("_token_id")
        keys = [key, *([f"{_OLDER[mark]}_token_id"] if mark in _OLDER else [])]
        stated = [metadata.get(f"tokenizer.ggml.{k}") for k in keys]
        named = [ids[name] for name in names if name in ids]
        chosen = next((int(i) for i in [*stated, *named] if i is not None), None)
        if chosen is not None:
            found[mark] = chosen
    return found


def fills_gaps(metadata: Any, ids: Any) -> bool:
    """Tell whether a model has the marks; ``ids``: its tokens' texts, with or without numbers."""
    known = dict.fromkeys(ids, 0)
    return all(mark in _marks(metadata, known) for mark in _NEEDED)


def infill_ids(
    service: Service,
    prefix: str,
    suffix: str,
    extra: Sequence[tuple[str, str]] = (),
    prompt: str = "",
) -> list[int]:
    """Return the token ids of the place between two texts.

    The order is prefix, suffix, middle, as CodeLlama, Qwen and StarCoder were trained with it, and
    as llama-server sends it. ``extra``: (name, text) of further files, which go before it with a
    mark where the model has one; ``prompt``: more of the prefix, as llama-server has it.
    APIError 400 for other models.
    """
    tokenizer = service.tokenizer
    marks = _marks(service.model.gguf.metadata, tokenizer.ids)
    if not all(mark in marks for mark in _NEEDED):
        raise APIError(
            400, "this model has no tokens for filling a gap (fim_pre, fim_suf, fim_mid)"
        )

    def plain(text: str) -> list[int]:
        ids: list[int] = tokenizer.encode(text, add_special=False, parse_special=False)
        return ids

    out = [tokenizer.bos_id] if tokenizer.add_bos and tokenizer.bos_id is not None else []
    for name, text in extra:
        mark = [marks["fim_sep"]] if "fim_sep" in marks else []
        out += [*mark, *plain(f"{name}\n{text}\n" if mark else f"{text}\n")]
    out += [marks["fim_pre"], *plain(prefix + prompt)]
    return [*out, marks["fim_suf"], *plain(suffix), marks["fim_mid"]]
