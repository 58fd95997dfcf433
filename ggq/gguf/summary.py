"""What a GGUF file amounts to: parameters, bytes per block type, and memory per token of context.

Plain numbers from metadata and the tensor table, ready for text or JSON; reads no tensor data and
prints nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ggq.errors import GGQError
from ggq.gguf import spec
from ggq.gguf.metadata import StringArray
from ggq.gguf.reader import GGUFFile
from ggq.gguf.validate import validate_model

CACHE_BYTES = {"f32": 4.0, "f16": 2.0, "q8_0": 34 / 32, "q4_0": 18 / 32}


def type_shares(f: GGUFFile) -> dict[str, dict[str, Any]]:
    """Return tensors, weights, bytes and share of all weights per block type, largest first."""
    total = max(1, sum(t.n_elements for t in f.tensors.values()))
    rows: dict[str, dict[str, Any]] = {}
    for t in f.tensors.values():
        row = rows.setdefault(t.type_name, {"tensors": 0, "weights": 0, "bytes": 0})
        row["tensors"] += 1
        row["weights"] += t.n_elements
        row["bytes"] += t.nbytes
    for row in rows.values():
        row["share"] = row["weights"] / total
    return dict(sorted(rows.items(), key=lambda item: -item[1]["weights"]))


def kv_bytes_per_token(f: GGUFFile, cache_type: str = "f16") -> float | None:
    """Return the bytes that one token takes in the KV cache of a validated model, None without.

    Counts every layer in full: a sliding window or a layer that shares its cache takes less.
    """
    arch = f.get(spec.KEY_ARCHITECTURE, "", str)
    n_layer = f.get(f"{arch}.block_count", 0, int)
    n_embd = f.get(f"{arch}.embedding_length", 0, int)
    heads = f.get(f"{arch}.attention.head_count", 0)
    heads_kv = f.get(f"{arch}.attention.head_count_kv", heads)
    if n_layer < 1 or not np.any(heads):  # no attention, such as pure state-space models
        return None
    per_layer = np.asarray(heads_kv, np.int64).reshape(-1)  # one value or at least n_layer
    n_heads = int(per_layer[0]) * n_layer if len(per_layer) == 1 else int(per_layer[:n_layer].sum())
    widest = int(np.max(heads))
    width_k: int = f.get(f"{arch}.attention.key_length", n_embd // widest, int)
    width_v: int = f.get(f"{arch}.attention.value_length", n_embd // widest, int)
    return n_heads * (width_k + width_v) * CACHE_BYTES[cache_type]


def summarize(f: GGUFFile) -> dict[str, Any]:
    """Return sizes, counts, type shares, cache sizes, and what ``validate_model`` has to say."""
    try:
        problem, warnings = None, validate_model(f, vocab_only=not f.tensors)
    except GGQError as error:
        problem, warnings = str(error), []
    n_weights = sum(t.n_elements for t in f.tensors.values())
    data_bytes = sum(t.nbytes for t in f.tensors.values())
    return {
        "path": str(f.path),
        "version": f.version,
        "bytes": f.nbytes,
        "shards": len(f.shards),
        "architecture": f.metadata.get(spec.KEY_ARCHITECTURE),
        "tensors": len(f.tensors),
        "weights": n_weights,
        "bits_per_weight": 8 * data_bytes / n_weights if n_weights else None,
        "types": type_shares(f),
        "kv_bytes_per_1k_context": _cache_sizes(f) if f.tensors and not problem else None,
        "problem": problem,
        "warnings": warnings,
    }


def _cache_sizes(f: GGUFFile) -> dict[str, int] | None:
    sizes = {name: kv_bytes_per_token(f, name) for name in CACHE_BYTES}
    return {name: round(1024 * size) for name, size in sizes.items() if size is not None} or None


def plain_value(value: Any, limit: int | None = 8) -> Any:
    """Return a metadata value for JSON; a long array as its length and first ``limit`` items.

    NaN and infinities become their names, since JSON has no such numbers.
    """
    if isinstance(value, float) and not np.isfinite(value):
        return str(value)
    if not isinstance(value, Sequence | np.ndarray) or isinstance(value, str):
        return value
    head = value[: len(value) if limit is None else limit]
    if isinstance(value, StringArray):
        items = [item.decode("utf-8", "replace") for item in head]
    else:
        items = [plain_value(item) for item in np.asarray(head).tolist()]
    return items if len(items) == len(value) else {"length": len(value), "first": items}
