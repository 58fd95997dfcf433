"""Reads one safetensors file in slabs of rows, mapped and validated before use; writes shards.

It knows the container only: not which model the tensors belong to, nor what they become. The format
is that of github.com/huggingface/safetensors; pickles and remote code have no way in.
"""

from __future__ import annotations

import json
import mmap
import os
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np

from ggq.errors import GIT_LFS, FormatError, pointer_error, printable

__all__ = [
    "Mapped",
    "Output",
    "SafetensorsFile",
    "StoredTensor",
    "layout",
    "open_regular",
    "save",
    "save_index",
    "shards",
    "write_header",
]

MAX_HEADER = 100_000_000
DTYPES = {  # stored as -> numpy view; BF16 has no numpy type and is widened by hand
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "<u2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "i1",
    "U64": "<u8",
    "U32": "<u4",
    "U16": "<u2",
    "U8": "u1",
    "BOOL": "u1",
    "F8_E4M3": "u1",
    "F8_E5M2": "u1",
    "F8_E8M0": "u1",
}
FLOATS = ("F64", "F32", "F16", "BF16")


class Mapped(Protocol):
    """What holds a tensor's bytes: a file of many, or the memory of one."""

    @property
    def buffer(self) -> Any: ...


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of a file: ``dtype`` as safetensors names it, ``shape`` rows first."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    file: Mapped

    @property
    def n_rows(self) -> int:
        """Rows once leading dimensions are flattened; a vector is one row."""
        return prod(self.shape[:-1])

    def stored(self) -> np.ndarray:
        """Return all rows as the file holds them, a view (n_rows, width) of the mapped file."""
        view = np.frombuffer(
            self.file.buffer, DTYPES[self.dtype], prod(self.shape), offset=self.start
        )
        return view.reshape(self.n_rows, self.shape[-1] if self.shape else 1)

    def read(self, rows: slice | np.ndarray | tuple[slice, slice]) -> np.ndarray:
        """Return rows, or (rows, columns), as float32, exact; FormatError for other than floats."""
        if self.dtype not in FLOATS:
            raise FormatError(f"tensor {printable(self.name)} holds {self.dtype}, not floats")
        stored = self.stored()[rows]
        if self.dtype != "BF16":
            return stored.astype(np.float32)
        wide = stored.astype(np.uint32)
        wide <<= 16
        return wide.view(np.float32)


def open_regular(path: Path) -> BinaryIO:
    """Open a file to read; FormatError where it is a FIFO or a device: these may wait for ever."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise FormatError(f"{printable(path.name)}: is not a regular file")
    return open(path, "rb")


class SafetensorsFile:
    """One open file; ``tensors`` maps names to `StoredTensor`. FormatError names what is wrong.

    ``metadata``: what the file says of itself besides.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._where = printable(self.path.name)
        try:
            with open_regular(self.path) as file:
                size = os.fstat(file.fileno()).st_size
                header, data = self._header(file, size)
                self.buffer = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise FormatError(f"{self._where}: cannot read: {error.strerror}") from None
        self.tensors = self._tensors(header, data, size)

    def close(self) -> None:
        """Unmap the file; views of it that are still held keep it mapped."""
        self.tensors = {}
        try:
            self.buffer.close()
        except BufferError:
            return

    def _header(self, file: BinaryIO, size: int) -> tuple[dict[str, Any], int]:
        """Return (header, offset of the data)."""
        start = file.read(len(GIT_LFS))
        if start == GIT_LFS:
            raise pointer_error(self.path)
        file.seek(8)
        length = int.from_bytes(start[:8], "little")
        if size < 8 or length > min(MAX_HEADER, size - 8):
            raise FormatError(f"{self._where}: header of {length} bytes in a file of {size}")
        try:
            header = json.loads(file.read(length))
        except (ValueError, RecursionError):
            raise FormatError(f"{self._where}: the header is not JSON") from None
        if not isinstance(header, dict):
            raise FormatError(f"{self._where}: the header is not a JSON object")
        said = header.pop("__metadata__", None)
        said = said if isinstance(said, dict) else {}
        self.metadata = {k: text for k, text in said.items() if isinstance(text, str)}
        return header, 8 + length

    def _tensors(self, header: dict[str, Any], data: int, size: int) -> dict[str, StoredTensor]:
        entries = [self._entry(name, info) for name, info in header.items()]
        end = 0
        found = {}
        for name, dtype, shape, (start, stop) in sorted(entries, key=lambda e: e[3]):
            if start != end:
                raise FormatError(
                    f"{self._where}: tensor {printable(name)} leaves a gap or overlaps"
                )
            found[name] = StoredTensor(name, dtype, shape, data + start, self)
            end = stop
        if data + end != size:
            raise FormatError(
                f"{self._where}: holds {size} bytes, the header describes {data + end}"
            )
        return found

    def _entry(self, name: str, info: object) -> tuple[str, str, tuple[int, ...], tuple[int, int]]:
        """Return (name, dtype, shape, (start, stop)) of a header entry whose sizes agree."""
        where = f"{self._where}: tensor {printable(name)}"
        if not isinstance(info, dict) or info.get("dtype") not in DTYPES:
            raise FormatError(f"{where}: unknown type")
        shape = _small_numbers(info.get("shape"), f"{where}: bad shape")
        span = _small_numbers(info.get("data_offsets"), f"{where}: bad offsets")
        width = np.dtype(DTYPES[info["dtype"]]).itemsize
        if len(span) != 2 or span[1] - span[0] != prod(shape) * width:
            raise FormatError(f"{where}: {span} does not hold shape {shape} of {info['dtype']}")
        return name, info["dtype"], tuple(shape), (span[0], span[1])


def _small_numbers(value: object, refusal: str) -> list[int]:
    """Return a list of up to eight sizes, small enough to multiply; FormatError."""
    if not isinstance(value, list) or len(value) > 8:
        raise FormatError(refusal)
    if not all(type(n) is int and 0 <= n < 1 << 62 for n in value):
        raise FormatError(refusal)
    return value


def write_header(tensors: dict[str, tuple[str, tuple[int, ...]]]) -> bytes:
    """Return length and header of a file of these (dtype, shape), data following in order."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    start = 0
    for name, (dtype, shape) in tensors.items():
        stop = start + prod(shape) * np.dtype(DTYPES[dtype]).itemsize
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [start, stop]}
        start = stop
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


@dataclass(frozen=True)
class Output:
    """A tensor to write: ``data`` gives its bytes in order, in arrays of any size, when asked."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    data: Callable[[], Iterable[np.ndarray]]

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * self.width

    @property
    def width(self) -> int:
        """Bytes of an element."""
        return np.dtype(DTYPES[self.dtype]).itemsize


def shards(outputs: Iterable[Output], limit: int) -> dict[str, list[Output]]:
    """Return the files of a checkpoint: model.safetensors, or several of ``limit`` bytes at most.

    A tensor that is larger has a file of its own.
    """
    groups: list[list[Output]] = [[]]
    filled = 0
    for one in outputs:
        if groups[-1] and filled + one.nbytes > limit:
            groups.append([])
            filled = 0
        groups[-1].append(one)
        filled += one.nbytes
    if len(groups) == 1:
        return {"model.safetensors": groups[0]}
    n = len(groups)
    return {f"model-{i + 1:05}-of-{n:05}.safetensors": g for i, g in enumerate(groups)}


def layout(group: list[Output]) -> tuple[bytes, dict[str, int]]:
    """Return a file's header and where in it each tensor begins.

    Wider elements come first, so that each lies where its type may be read in place.
    """
    ordered = sorted(group, key=lambda one: -one.width)
    header = write_header({one.name: (one.dtype, one.shape) for one in ordered})
    starts, at = {}, len(header)
    for one in ordered:
        starts[one.name] = at
        at += one.nbytes
    return header, starts


def save(files: dict[str, list[Output]], folder: Path) -> None:
    """Write the files of `shards`, each on disk when it is complete, and their index."""
    for name, group in files.items():
        header, starts = layout(group)
        with open(folder / name, "wb") as out:
            out.write(header)
            for one in group:
                out.seek(starts[one.name])
                for part in one.data():
                    out.write(np.ascontiguousarray(part).data)
                assert out.tell() == starts[one.name] + one.nbytes, one.name
            out.flush()
            os.fsync(out.fileno())
    save_index(files, folder)


def save_index(files: dict[str, list[Output]], folder: Path) -> None:
    """Write which tensor is in which file, where there are several."""
    if len(files) < 2:
        return
    total = sum(one.nbytes for group in files.values() for one in group)
    told = {one.name: name for name, group in files.items() for one in group}
    index = {"metadata": {"total_size": total}, "weight_map": told}
    text = json.dumps(index, indent=2, ensure_ascii=False) + "\n"
    (folder / "model.safetensors.index.json").write_text(text, encoding="utf-8")
