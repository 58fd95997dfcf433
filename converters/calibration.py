"""Calibration text as token windows, and a conversion's tensors as weights that back ends run.

It knows conversions and tokenizers, but not what is measured on the windows.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ggq.errors import FormatError, GGQError, ModelError, UsageError, printable
from ggq.gguf import spec
from ggq.runtime.engine.weights import Tensor
from ggq.runtime.measure.evaluation import read_text, windows

__all__ = ["Calibration", "SourceWeights", "calibrate", "metadata_of", "sample"]

BUILT_IN = Path(__file__).with_name("prepasses") / "calibration.txt"


@dataclass(frozen=True)
class Calibration:
    """``windows``: int64 (n, n_ctx) token ids; ``dataset``: where the text came from."""

    windows: np.ndarray
    dataset: str

    @property
    def n_tokens(self) -> int:
        return self.windows.size


class SourceWeights(Mapping[str, Tensor]):
    """The tensors of a `Conversion` as float32 weights, read anew at each look-up."""

    def __init__(self, tensors: Mapping[str, Any]):
        self._tensors = tensors

    def __getitem__(self, name: str) -> Tensor:
        tensor = self._tensors[name]
        n_rows = int(np.prod(tensor.shape[:-1], dtype=np.int64))
        values = np.ascontiguousarray(_read(tensor, n_rows), np.float32)
        return Tensor(name, tensor.shape, spec.TYPE_IDS["F32"], values.view(np.uint8))

    def __contains__(self, name: object) -> bool:
        return name in self._tensors

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


def _read(tensor: Any, n_rows: int) -> np.ndarray:
    """Return all rows; a tensor of several parts (experts) is read part by part."""
    if len(tensor.shape) < 3:
        return tensor.read(0, n_rows)
    per_part = tensor.shape[-2]
    parts = [tensor.read(i, i + per_part) for i in range(0, n_rows, per_part)]
    return np.concatenate(parts)


def metadata_of(job: Any) -> dict[str, Any]:
    """Return the keys that the conversion's file will have."""
    copied = dict(job.copy_from.metadata) if job.copy_from is not None else {}
    return copied | {item.key: item.value for item in job.items}


def hparams_of(job: Any) -> Any:
    """Return the architecture and the complete hyper-parameters of a conversion."""
    from ggq import models

    architecture = models.get(job.arch)
    if job.copy_from is None:
        return architecture, job.hparams
    hp = architecture.hparams(job.copy_from)
    architecture.check(job.copy_from, hp)
    return architecture, hp


def calibrate(
    job: Any,
    source: str | Path | None = None,
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


class _Texts(list):
    """Tokens as a file's array of strings gives them."""

    def text(self, index: int) -> str:
        return self[index]
