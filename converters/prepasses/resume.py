"""Keeps what a pass has found beside the output, so that a killed run goes on where it was.

A folder belongs to one source, one set of options and one calibration: its name holds their hash.
It knows nothing about how blocks or sums are found.
"""

from __future__ import annotations

import hashlib
import shutil
import zipfile
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ggq.converters.identity import unfinished
from ggq.errors import UsageError, printable, reason

__all__ = ["Store"]

_BROKEN = (OSError, ValueError, EOFError, zipfile.BadZipFile)  # none, or cut by a power failure


class Store:
    """A folder beside ``out``: blocks by tensor name, uint8 (rows, row bytes), and sums so far."""

    def __init__(self, job: Any, *facts: Any):
        self.folder = unfinished(job, *facts)

    def load(self, name: str, shape: tuple[int, int]) -> np.ndarray | None:
        """Return the blocks of an earlier run, None where it did not come so far."""
        with suppress(*_BROKEN):
            blocks = np.load(self._path(name, "npy"), allow_pickle=False)
            if blocks.dtype == np.uint8 and blocks.shape == shape:
                return blocks
        return None

    def save(self, name: str, blocks: np.ndarray) -> None:
        """Keep the blocks of a tensor; whole or not at all."""
        self._write(self._path(name, "npy"), partial(np.save, arr=blocks))

    def recall(self, name: str) -> dict[str, np.ndarray]:
        """Return the arrays of an earlier run that `keep` took last; {} where there are none."""
        with suppress(*_BROKEN), open(self._path(name, "npz"), "rb") as file:
            return dict(np.load(file, allow_pickle=False))
        return {}

    def keep(self, name: str, arrays: dict[str, np.ndarray]) -> None:
        """Keep arrays in the place of those before; whole or not at all."""
        given: dict[str, Any] = arrays  # numpy's stubs take them for its flag
        self._write(self._path(name, "npz"), lambda file: np.savez(file, **given))

    def remove(self) -> None:
        """Forget everything: the conversion is done."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, name: str, suffix: str) -> Path:
        return self.folder / f"{hashlib.sha256(name.encode()).hexdigest()[:24]}.{suffix}"

    def _write(self, path: Path, write: Callable[[BinaryIO], None]) -> None:
        try:
            self.folder.mkdir(exist_ok=True)
            with open(path.with_suffix(".new"), "wb") as file:
                write(file)
            path.with_suffix(".new").replace(path)
        except OSError as error:
            where = printable(self.folder)
            raise UsageError(f"{where}: cannot keep what is finished: {reason(error)}") from None
