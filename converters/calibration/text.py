"""Calibration text as token windows, tokenized as a conversion's model does.

It knows conversions and tokenizers, but not what is measured on the windows.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ggq.converters.calibration.weights import hparams_of, metadata_of
from ggq.errors import FormatError, GGQError, ModelError, UsageError, printable
from ggq.runtime.measure.evaluation import read_text, windows

__all__ = ["BUILT_IN", "Calibration", "calibrate", "sample"]

BUILT_IN = Path(__file__).with_name("calibration.txt")


@dataclass(frozen=True)
class Calibration:
    """``windows``: int64 (n, n_ctx) token ids; ``dataset``: where the text came from."""

    windows: np.ndarray
    dataset: str

    @property
    def n_tokens(self) -> int:
        return self.windows.size


def calibrate(
    job: Any,
    source: str | os.PathLike[str] | None = None,
    n_ctx: int = 512,
    limit: int | None = None,
    spread: bool = False,
    starts: bool = False,
) -> Calibration:
    """Return the windows of a text or of a jsonl of chats, tokenized as ``job``'s model does.

    ``source`` None: the text that comes with ggq. Windows are llama.cpp's: consecutive, of
    min(n_ctx, trained context) tokens, beginning with BOS where the model wants it. ``limit``
    takes the first windows, with ``spread`` as many evenly over all. ``starts``: where the model
    adds no BOS but has one, every other window begins with it: attention behaves differently from
    the start of a conversation than from the middle of a text. UsageError if it is too short.
    """
    from ggq.runtime.tokenizers import tokenizer_from_gguf

    path = BUILT_IN if source is None else Path(source)
    metadata = metadata_of(job)
    tokenizer = tokenizer_from_gguf(metadata)
    text = read_text(path)
    if path.suffix == ".jsonl":
        ids = _chat_ids(text, path, metadata, tokenizer)
    else:
        ids = tokenizer.encode(text, add_special=True, parse_special=False)
    _, hp = hparams_of(job)
    size = min(n_ctx, hp.n_ctx_train or n_ctx)
    bos = tokenizer.bos_id if tokenizer.add_bos else None
    if len(ids) < size:
        raise UsageError(
            f"{printable(path)}: too short to calibrate: {len(ids)} tokens, one window needs {size}"
        )
    found = np.stack(list(windows(ids, size, bos)))
    if found.max() >= hp.n_vocab:
        raise ModelError(f"token {found.max()} has no row in the embedding of {hp.n_vocab}")
    if limit is not None:
        found = sample(found, limit) if spread else found[:limit]
    if starts and bos is None and tokenizer.bos_id is not None:
        found[1::2, 0] = tokenizer.bos_id
    return Calibration(found, path.name if source is None else str(source))


def sample(found: np.ndarray, n: int) -> np.ndarray:
    """Return ``n`` windows spread evenly over all of them, or all if there are no more."""
    if n >= len(found):
        return found
    return found[(np.arange(n) * len(found)) // n]


def _chat_ids(text: str, path: Path, metadata: Mapping[str, Any], tokenizer: Any) -> list[int]:
    """Return the ids of chats, one JSON object with ``messages`` a line, under the template."""
    from ggq.runtime.template.template import ChatTemplate

    if "tokenizer.chat_template" not in metadata:
        raise UsageError(f"{printable(path)}: the model has no chat template for these chats")
    known = {**metadata, "tokenizer.ggml.tokens": _Texts(tokenizer.tokens)}
    template = ChatTemplate.from_gguf(_Metadata(known))
    ids: list[int] = []
    for number, line in enumerate(text.split("\n"), 1):  # strings may hold other line separators
        if not line.strip():
            continue
        try:
            messages = json.loads(line)["messages"]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise FormatError(
                f"{printable(path)}: line {number} is no JSON object with messages"
            ) from None
        try:
            segments = template.render(messages, add_generation_prompt=False)
        except GGQError as error:
            raise FormatError(f"{printable(path)}: line {number}: {error}") from None
        for segment in segments:
            ids += tokenizer.encode(
                segment.text, add_special=False, parse_special=segment.parse_special
            )
    return ids


@dataclass(frozen=True)
class _Metadata:
    """What a template asks of a GGUF file."""

    metadata: Mapping[str, Any]

    def get(self, key: str, default: Any = None, type: Any = None) -> Any:
        return self.metadata.get(key, default)


class _Texts(list[str]):
    """Tokens as a file's array of strings gives them."""

    def text(self, index: int) -> str:
        return self[index]
