"""Distributes declared tensors over one file or several shards, with the exact size of each.

Pure arithmetic on declarations: it opens no file and knows no tensor data.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from ggq.errors import UsageError, printable
from ggq.gguf import spec
from ggq.gguf.encode import TensorSpec, encode_header, encode_value, info_bytes, key_bytes
from ggq.gguf.splits import shard_path


class ShardPlan(NamedTuple):
    """One file to write: final path, keys, tensors in order, and its exact size in bytes."""

    path: Path
    keys: dict[str, bytes]
    tensors: list[TensorSpec]
    header_bytes: int
    nbytes: int


def plan_shards(
    path: Path,
    keys: dict[str, bytes],
    tensors: Sequence[TensorSpec],
    max_bytes: int | None = None,
    max_tensors: int | None = None,
) -> list[ShardPlan]:
    """Plan one file, or shards of at most ``max_bytes`` (whole files) and ``max_tensors`` each.

    A tensor that is too large alone gets its own shard. Only the first shard carries the keys.
    """
    groups = _group(keys, tensors, max_bytes, max_tensors)
    if len(groups) > spec.MAX_SHARDS:
        raise UsageError(
            f"{printable(path)}: would need {len(groups)} shards, limit {spec.MAX_SHARDS}"
        )
    if len(groups) == 1:
        return [_plan(path, keys, groups[0])]
    plans = []
    for i, group in enumerate(groups):
        split = _split_keys(i, len(groups), len(tensors))
        shard_keys = {**keys, **split} if i == 0 else split
        plans.append(_plan(shard_path(path, i, len(groups)), shard_keys, group))
    return plans


def _plan(path: Path, keys: dict[str, bytes], tensors: list[TensorSpec]) -> ShardPlan:
    header_bytes = len(encode_header(keys, tensors))
    return ShardPlan(path, keys, tensors, header_bytes, header_bytes + _data_bytes(tensors))


def _data_bytes(tensors: Iterable[TensorSpec]) -> int:
    return sum(spec.pad(tensor.nbytes, spec.DEFAULT_ALIGNMENT) for tensor in tensors)


def _split_keys(index: int, count: int, n_tensors: int) -> dict[str, bytes]:
    return {
        spec.KEY_SPLIT_NO: encode_value(spec.KEY_SPLIT_NO, index, spec.U16),
        spec.KEY_SPLIT_COUNT: encode_value(spec.KEY_SPLIT_COUNT, count, spec.U16),
        spec.KEY_SPLIT_TENSORS: encode_value(spec.KEY_SPLIT_TENSORS, n_tensors, spec.I32),
    }


def _group(
    keys: dict[str, bytes],
    tensors: Sequence[TensorSpec],
    max_bytes: int | None,
    max_tensors: int | None,
) -> list[list[TensorSpec]]:
    if max_bytes is None and max_tensors is None:
        return [list(tensors)]
    split_bytes = sum(key_bytes(*item) for item in _split_keys(0, 1, 0).items())
    header = 24 + split_bytes + sum(key_bytes(*item) for item in keys.items())
    groups: list[list[TensorSpec]] = [[]]
    data = 0
    for tensor in tensors:
        new_header, new_data = header + info_bytes(tensor), data + _data_bytes([tensor])
        size = spec.pad(new_header, spec.DEFAULT_ALIGNMENT) + new_data
        too_big = max_bytes is not None and size > max_bytes
        if groups[-1] and (too_big or len(groups[-1]) == max_tensors):
            groups.append([])
            new_header, new_data = 24 + split_bytes + info_bytes(tensor), _data_bytes([tensor])
        groups[-1].append(tensor)
        header, data = new_header, new_data
    return groups
