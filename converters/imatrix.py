"""Reads and writes importance matrices in llama.cpp's two forms, imatrix.gguf and the older .dat.

An entry is the mean squared activation per input column, one slice per expert; who measured it and
how it is used is not known here.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ggq.errors import FormatError, UsageError, printable
from ggq.gguf import GGUFFile, GGUFWriter, open_gguf, spec
from ggq.outputs import output_file

__all__ = ["Imatrix", "check_out", "read_imatrix", "without_gaps", "write_imatrix"]

SUMS, COUNTS = ".in_sum2", ".counts"
KEY_DATASETS, KEY_CHUNKS = "imatrix.datasets", "imatrix.chunk_count"
KEY_CHUNK_SIZE = "imatrix.chunk_size"
GAP = 8  # columns: the smallest group that a block type gives a scale or a grid point
MAX_ENTRIES, MAX_NAME = 1 << 20, 1 << 12


@dataclass
class Imatrix:
    """``values``: tensor name -> float32 (n_experts * n_columns,); where it came from.

    ``unmeasured``: names that the file has with nothing but zeros, as older programs wrote for
    what no token reached; they are not among the values.
    """

    values: dict[str, np.ndarray] = field(default_factory=dict)
    path: str = ""
    dataset: str = ""
    chunks: int = 0
    unmeasured: list[str] = field(default_factory=list)

    def slice_for(self, name: str, shape: tuple[int, ...], part: int) -> np.ndarray | None:
        """Return the importance of one expert's columns, float32 (shape[-1],), None if unmeasured.

        FormatError where the size does not fit the tensor; an embedding's is then left out.
        """
        table = self._table(name, shape)
        return None if table is None else without_gaps(table[part])

    def unmeasured_experts(self, name: str, shape: tuple[int, ...]) -> int:
        """Return how many experts of a tensor have nothing but zeros."""
        table = self._table(name, shape)
        return 0 if table is None else int((~table.any(1)).sum())

    def _table(self, name: str, shape: tuple[int, ...]) -> np.ndarray | None:
        values = self.values.get(name)
        if values is None:
            return None
        n_parts = shape[0] if len(shape) > 2 else 1
        if values.size != n_parts * shape[-1]:
            if name in ("token_embd.weight", "per_layer_token_embd.weight"):
                return None
            raise FormatError(
                f"imatrix entry {printable(name)} has {values.size} values, "
                f"the tensor needs {n_parts * shape[-1]}"
            )
        return values.reshape(n_parts, shape[-1])


def without_gaps(values: np.ndarray) -> np.ndarray:
    """Return importance under which no weight is lost: zeros all along `GAP` columns are filled.

    Zero means that nothing was measured: a search would give such a group the scale 0. It gets the
    least that was measured elsewhere, or 1. What has no such gap is returned as it is.
    """
    zero = values == 0
    if not zero.any() or values.size % GAP:
        return np.ones_like(values) if zero.all() else values
    gaps = np.repeat(zero.reshape(-1, GAP).all(1), GAP)
    if not gaps.any():
        return values
    measured = values[values > 0]
    return np.where(gaps, measured.min() if measured.size else np.float32(1), values)


def read_imatrix(path: str | os.PathLike[str]) -> Imatrix:
    """Return the matrix of a .gguf or .dat file as llama-quantize would use it; FormatError."""
    path = Path(path)
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):  # would be read without end
            raise UsageError(f"{printable(path)}: is not a file")
        with open(path, "rb") as file:
            is_gguf = file.read(4) == spec.MAGIC
    except OSError as error:
        raise UsageError(f"{printable(path)}: cannot read: {error.strerror}") from None
    found = _read_gguf(path) if is_gguf else _read_dat(path)
    found.path = str(path)
    for name, values in found.values.items():
        if not np.isfinite(values).all():
            raise FormatError(f"{printable(path)}: entry {printable(name)} is not finite")
        if (values < 0).any():
            raise FormatError(f"{printable(path)}: entry {printable(name)}: a square below zero")
    found.unmeasured += [name for name, values in found.values.items() if not values.any()]
    for name in found.unmeasured:
        found.values.pop(name)
    if not (found.values or found.unmeasured):
        raise FormatError(f"{printable(path)}: no entries")
    return found


def _read_gguf(path: Path) -> Imatrix:
    with open_gguf(path) as file:
        return _from_gguf(file, printable(path))


def _from_gguf(file: GGUFFile, where: str) -> Imatrix:
    for key in (KEY_DATASETS, KEY_CHUNKS, KEY_CHUNK_SIZE):
        if key not in file.metadata:
            raise FormatError(f"{where}: no key {key}; is this an importance matrix?")
    datasets = file.metadata[KEY_DATASETS]
    first = datasets.text(0) if hasattr(datasets, "text") and len(datasets) else ""
    made = Imatrix(dataset=first, chunks=file.get(KEY_CHUNKS, type=int))
    names = [n.removesuffix(SUMS) for n in file.tensors if n.endswith(SUMS)]
    for name in names:
        sums, counts = (_floats(file, f"{name}{s}", where) for s in (SUMS, COUNTS))
        if counts.size < 1 or sums.size % counts.size:
            raise FormatError(f"{where}: entry {printable(name)} has {counts.size} counts")
        counts = np.rint(counts).astype(np.float32).reshape(-1, 1)
        table = sums.reshape(counts.size, -1)
        made.values[name] = np.where(counts > 0, table / np.maximum(counts, 1), 1).ravel()
        made.values[name] = made.values[name].astype(np.float32)
    return made


def _floats(file: GGUFFile, name: str, where: str) -> np.ndarray:
    info = file.tensors.get(name)
    if info is None or info.type_id != spec.TYPE_IDS["F32"]:
        raise FormatError(f"{where}: no F32 tensor {printable(name)}")
    return np.ascontiguousarray(file.data(name)).view("<f4").ravel()


def _read_dat(path: Path) -> Imatrix:
    """Read the older form: int32 counts, names and float32 sums already divided by token counts."""
    data, where = path.read_bytes(), printable(path)
    position = 0

    def take(n: int) -> bytes:
        nonlocal position
        if not 0 <= n <= len(data) - position:
            raise FormatError(f"{where}: ends within an entry; is this an importance matrix?")
        position += n
        return data[position - n : position]

    def number(limit: int) -> int:
        (value,) = struct.unpack("<i", take(4))
        if not 0 <= value <= limit:
            raise FormatError(f"{where}: a size of {value}; is this an importance matrix?")
        return value

    made = Imatrix()
    for _ in range(number(MAX_ENTRIES)):
        name = take(number(MAX_NAME)).decode("utf-8", "replace")
        if name in made.values:
            raise FormatError(f"{where}: entry {printable(name)} is there twice")
        calls = number(1 << 30)
        sums = np.frombuffer(take(4 * number(1 << 29)), "<f4")
        made.values[name] = sums / np.float32(calls) if calls > 0 else sums.copy()
    if position < len(data):
        made.chunks = number(1 << 30)
        if position < len(data):
            made.dataset = take(number(1 << 16)).decode("utf-8", "replace")
    return made


def write_imatrix(
    path: str | os.PathLike[str],
    sums: Mapping[str, np.ndarray],
    counts: Mapping[str, np.ndarray],
    dataset: str,
    chunks: tuple[int, int],
    force: bool = False,
) -> None:
    """Write squared-activation sums (n_experts, n_columns) and counts (n_experts,) for llama.cpp.

    ``chunks`` is (number, tokens each). A name that ends in ``.dat`` gets the older form.
    """
    path = Path(path)
    if path.suffix == ".dat":
        check_out(path, force)
        _write_dat(path, sums, counts, dataset, chunks)
        return
    with GGUFWriter(path, force=force) as writer:
        writer.add("general.type", "imatrix")
        writer.add(KEY_DATASETS, [dataset], spec.STR)
        writer.add(KEY_CHUNKS, chunks[0], spec.U32)
        writer.add(KEY_CHUNK_SIZE, chunks[1], spec.U32)
        parts = {}
        for name in sorted(sums):
            table = np.ascontiguousarray(sums[name], "<f4").reshape(len(counts[name]), -1)
            parts[name + SUMS] = table if len(table) > 1 else table.reshape(1, -1)
            parts[name + COUNTS] = np.ascontiguousarray(counts[name], "<f4").reshape(-1, 1)
        for name, values in parts.items():
            writer.add_tensor(name, values.shape, spec.TYPE_IDS["F32"])
        writer.begin()
        for name, values in parts.items():
            writer.write(name, values.view(np.uint8))


def check_out(path: Path, force: bool = False) -> None:
    """Refuse a name that `write_imatrix` could not write, before any work; UsageError."""
    GGUFWriter(path, force).check()  # of the older form, too: the same rules


def _write_dat(
    path: Path,
    sums: Mapping[str, np.ndarray],
    counts: Mapping[str, np.ndarray],
    dataset: str,
    chunks: tuple[int, int],
) -> None:
    out = bytearray(struct.pack("<i", len(sums)))
    for name in sorted(sums):
        n = np.asarray(counts[name], np.float32).reshape(-1, 1)
        table = np.asarray(sums[name], np.float32).reshape(len(n), -1)
        mean = np.where(n > 0, table / np.maximum(n, 1), 1).astype("<f4").ravel()
        raw = name.encode()
        out += struct.pack("<i", len(raw)) + raw
        out += struct.pack("<ii", max(chunks[0], 1), mean.size)
        out += (mean * np.float32(max(chunks[0], 1))).astype("<f4").tobytes()
    text = dataset.encode()
    out += struct.pack("<ii", chunks[0], len(text)) + text
    output_file(path).write_bytes(out)
