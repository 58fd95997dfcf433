"""Keeps finished blocks beside the output file, so that a killed conversion goes on where it was.

A folder belongs to one source, one set of options and one calibration: its name holds their hash.
It knows nothing about how blocks are found.
"""

from __future__ import annotations

import hashlib
import shutil
from contextlib import suppress
from typing import Any

import numpy as np

from ggq.converters.identity import unfinished
from ggq.errors import UsageError, printable, reason

__all__ = ["Store"]


class Store:
    """Blocks by tensor name, uint8 (rows, row bytes), in a folder beside ``out``."""

    def __init__(self, job: Any, *facts: Any):
        self.folder = unfinished(job, *facts)

    def load(self, name: str, shape: tuple[int, int]) -> np.ndarray | None:
        """Return the blocks of an earlier run, None where it did not come so far."""
        with suppress(OSError, ValueError):
            blocks = np.load(self.folder / f"{_file(name)}.npy", allow_pickle=False)
            if blocks.dtype == np.uint8 and blocks.shape == shape:
                return blocks
        return None

    def save(self, name: str, blocks: np.ndarray) -> None:
        """Keep the blocks of a tensor; whole or not at all."""
        path = self.folder / f"{_file(name)}.npy"
        try:
            self.folder.mkdir(exist_ok=True)
            with open(path.with_suffix(".new"), "wb") as file:
                np.save(file, blocks)
            path.with_suffix(".new").replace(path)
        except OSError as error:
            where = printable(self.folder)
            raise UsageError(f"{where}: cannot keep finished blocks: {reason(error)}") from None

    def remove(self) -> None:
        """Forget everything: the conversion is done."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _file(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:24]
