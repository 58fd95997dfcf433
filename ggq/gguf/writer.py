"""Writes GGUF v3 as a stream: all tensors are declared first, then their rows follow in order.

Data goes to a temporary file beside the target, which takes the final name only when it is complete
and on disk: a process killed at any moment leaves the final name absent or whole. It does not know
how rows were made.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np

from ggq.errors import FormatError, UsageError, exists_error, printable
from ggq.gguf import leftovers, spec
from ggq.gguf.encode import TensorSpec, copy_value, declare_tensor, encode_header, encode_value
from ggq.gguf.layout import ShardPlan, plan_shards
from ggq.gguf.metadata import Metadata
from ggq.outputs import output_file

# Never copied from a source: the writer sets the split keys itself and always aligns to 32.
OWN_KEYS = frozenset(
    {spec.KEY_SPLIT_NO, spec.KEY_SPLIT_COUNT, spec.KEY_SPLIT_TENSORS, spec.KEY_ALIGNMENT}
)


class GGUFWriter:
    """Writes one GGUF model, split into shards where it exceeds ``split_max_bytes``.

    Order of calls: ``add`` and ``add_tensor`` in any order, ``begin``, ``write`` per slab,
    ``finish``. As a context manager it finishes at the end and aborts on an exception.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        force: bool = False,
        split_max_bytes: int | None = None,
        split_max_tensors: int | None = None,
    ) -> None:
        self.path, self.force = Path(path), force
        self._limits = (split_max_bytes, split_max_tensors)
        self._keys: dict[str, bytes] = {}
        self._tensors: dict[str, TensorSpec] = {}
        self._shards: list[_ShardFile] = []
        self._pending: Iterator[tuple[_ShardFile, TensorSpec]] = iter(())
        self._current: tuple[_ShardFile, TensorSpec] | None = None
        self._written = 0  # bytes of the current tensor
        self._state = "declaring"
        output_file(self.path, force)

    def add(self, key: str, value: Any, type: int | None = None) -> None:
        """Set a key; a key set before keeps its place. For arrays ``type`` is that of the items.

        Without ``type``: bool, str, int -> U32 (the next that fits), float -> F32, list of int ->
        I32.
        """
        self._expect("declaring")
        if not 0 < len(key.encode("utf-8")) <= spec.MAX_KEY_BYTES:
            raise FormatError(f"key '{printable(key)}': must have 1 to {spec.MAX_KEY_BYTES} bytes")
        self._keys[key] = encode_value(key, value, type)

    def remove(self, key: str) -> None:
        """Forget a key; raises KeyError where it was not set."""
        self._expect("declaring")
        del self._keys[key]

    def copy_metadata(self, metadata: Metadata, skip: Collection[str] = ()) -> None:
        """Add all keys of an open file byte for byte but ``skip``, split and alignment keys."""
        self._expect("declaring")
        for key in metadata:
            if key not in skip and key not in OWN_KEYS:
                self._keys[key] = copy_value(metadata, key)

    def add_tensor(self, name: str, shape: Iterable[int], type_id: int) -> None:
        """Declare a tensor, shape in numpy order (row length last); raises FormatError."""
        self._expect("declaring")
        if name in self._tensors:
            raise FormatError(f"tensor '{printable(name)}': declared twice")
        self._tensors[name] = declare_tensor(name, shape, type_id)

    def plan(self) -> list[ShardPlan]:
        """Return the files that would be written, each with its exact size; touches nothing."""
        return plan_shards(self.path, self._keys, list(self._tensors.values()), *self._limits)

    def check(self, part: int | None = None) -> list[ShardPlan]:
        """Return `plan`; UsageError where the files could not be written: taken, no room, no right.

        Called before long work whose result they are to hold. ``part``: of one file alone.
        """
        plans = self.plan() if part is None else [self.plan()[part]]
        for plan in plans:
            folder = output_file(plan.path, self.force).parent
            if not os.access(folder, os.W_OK | os.X_OK):
                raise UsageError(f"{printable(folder)}: files cannot be made in this folder")
        _check_space(output_file(self.path, self.force), sum(plan.nbytes for plan in plans))
        return plans

    def begin(self, part: int | None = None) -> None:
        """Create the temporary files and write their headers; declarations end here.

        ``part``: only the file of that number in `plan` is written, by the tensors it holds.
        """
        self._expect("declaring")
        plans = self.check(part)
        self._state = "writing"
        try:
            for plan in plans:
                self._shards.append(_ShardFile(plan, self.force))
        except BaseException:
            self.abort()
            raise
        self._pending = ((shard, tensor) for shard in self._shards for tensor in shard.plan.tensors)
        self._advance()

    def write(self, name: str, rows: np.ndarray) -> None:
        """Append whole rows (uint8) of ``name``, the next tensor in declared order."""
        self._expect("writing")
        if self._current is None or self._current[1].name != name:
            expected = self._current[1].name if self._current else "the end"
            raise ValueError(f"got rows of tensor {name}, expected {expected}")
        shard, tensor = self._current
        if rows.dtype != np.uint8 or rows.nbytes % spec.row_bytes(tensor.type_id, tensor.shape[-1]):
            raise ValueError(
                f"tensor {name}: {rows.nbytes} bytes of {rows.dtype} are not whole rows"
            )
        if self._written + rows.nbytes > tensor.nbytes:
            raise ValueError(f"tensor {name}: more rows than declared")
        self._written += rows.nbytes
        with _reported(shard.plan.path):
            shard.file.write(np.ascontiguousarray(rows).data)
            if self._written == tensor.nbytes:
                padded = spec.pad(tensor.nbytes, spec.DEFAULT_ALIGNMENT)
                shard.file.write(bytes(padded - tensor.nbytes))
                self._advance()

    def finish(self) -> list[Path]:
        """Put the complete files on disk under their final names and return these."""
        self._expect("writing")
        if self._current is not None:
            raise ValueError(f"tensor {self._current[1].name} is not complete")
        try:
            for shard in self._shards:
                shard.sync()
            # The first shard last: without it nobody opens the others.
            if self.force and len(self._shards) > 1:
                self._shards[0].plan.path.unlink(missing_ok=True)
            for shard in reversed(self._shards):
                shard.publish(self.force)
            _sync_folder(self.path.parent)
        except BaseException:
            self.abort()
            raise
        self._state = "finished"
        return [shard.plan.path for shard in self._shards]

    def abort(self) -> None:
        """Remove the temporary files; harmless when there are none or the writer has finished."""
        if self._state != "finished":
            self._state = "aborted"
            for shard in self._shards:
                shard.discard()

    def _advance(self) -> None:
        self._current, self._written = next(self._pending, None), 0

    def _expect(self, state: str) -> None:
        if self._state != state:
            raise ValueError(f"the writer of {self.path} is {self._state}, not {state}")

    def __enter__(self) -> GGUFWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None and self._state == "writing":
            self.finish()
        self.abort()


class _ShardFile:
    """One temporary file on its way to its final name."""

    def __init__(self, plan: ShardPlan, force: bool) -> None:
        self.plan = plan
        self.target = output_file(plan.path, force)  # a link's own file, perhaps on another disk
        self.temp = leftovers.temporary(self.target)
        with _reported(plan.path):
            leftovers.clear(self.target)
            self.file: BinaryIO = open(self.temp, "xb")  # noqa: SIM115 - closed by sync or discard
            self._claim = leftovers.claim(self.temp)
            self.file.write(encode_header(plan.keys, plan.tensors))

    def sync(self) -> None:
        with _reported(self.plan.path):
            self.file.flush()
            assert self.file.tell() == self.plan.nbytes
            os.fsync(self.file.fileno())
            self.file.close()

    def publish(self, force: bool) -> None:
        try:
            self._publish(force)
        finally:
            self._release()

    def _release(self) -> None:
        leftovers.release(self._claim)
        self._claim = None

    def _publish(self, force: bool) -> None:
        with _reported(self.plan.path):
            if force:
                os.replace(self.temp, self.target)
                return
            try:
                os.link(self.temp, self.target)  # unlike rename, fails where the name is taken
            except FileExistsError:
                raise
            except (OSError, NotImplementedError):  # a file system without hard links
                output_file(self.plan.path, force)
                os.rename(self.temp, self.target)
            else:
                os.unlink(self.temp)

    def discard(self) -> None:
        with suppress(OSError):  # a full disk fails the flush of close() too
            self.file.close()
        with suppress(OSError):
            os.unlink(self.temp)
        self._release()


@contextmanager
def _reported(path: Path) -> Iterator[None]:
    """Turn the system's errors into one line that names the file."""
    try:
        yield
    except FileExistsError:
        raise exists_error(path) from None
    except OSError as error:
        raise UsageError(f"{printable(path)}: cannot write: {error.strerror}") from None


def _check_space(path: Path, needed: int) -> None:
    with _reported(path):
        free = shutil.disk_usage(path.parent).free
    if needed > free:
        raise UsageError(f"{printable(path)}: needs {needed} bytes, the disk has {free} left")


def _sync_folder(folder: Path) -> None:
    """Make the new names durable; Windows has no such call."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
