"""Eyes: a projector file opened, and pictures made into rows of the text model's activations.

How a file's pixels are read, resized and laid out in tiles is known elsewhere; so are prompts.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ggq.errors import ModelError, UsageError, printable
from ggq.gguf import GGUFFile, open_gguf
from ggq.models import vision
from ggq.models.vision.sight import Sight
from ggq.models.vision.tower import Tower
from ggq.runtime.engine.devices import CPU, Device, resolve
from ggq.runtime.engine.retina import PictureWeights, Progress, Retina
from ggq.runtime.engine.weights import Tensor, Weights

__all__ = ["Eyes", "Seen"]


@dataclass(frozen=True)
class Seen:
    """A view as the text model takes it.

    ``rows``: float32 (tokens, n_text), row by row of the ``grid`` of tokens (rows, columns);
    ``deepstack``: float32 (k, tokens, n_text), to be added to the tokens' hidden states after the
    text model's first k layers.
    """

    rows: np.ndarray
    deepstack: np.ndarray
    grid: tuple[int, int]


class Eyes:
    """A projector file in use; not for several threads at a time. `load` makes one."""

    def __init__(self, file: GGUFFile, tower: Tower, sight: Sight, device: Device, threads: int):
        self.path = Path(file.path)
        self.tower, self.sight = tower, sight
        self._file, self._weights = file, PictureWeights(file)
        self._device, self._threads = device, threads
        self._retina: Retina | None = None

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], n_threads: int | None = None, device: str = "cpu"
    ) -> Eyes:
        """Open a projector file; GGQError where it is none that is supported, or broken."""
        from ggq.runtime.engine.cpu.threads import default_threads

        where, file = resolve(device), open_gguf(path)
        try:
            tower = vision.of_file(file)
            sight = tower.sight(file)
            tower.check(file, sight)
        except BaseException:
            file.close()
            raise
        return cls(file, tower, sight, where, n_threads or default_threads())

    @property
    def n_text(self) -> int:
        """Columns of a row."""
        return self.sight.n_text

    @property
    def nbytes(self) -> int:
        """Bytes of the weights."""
        return sum(tensor.nbytes for tensor in self._file.tensors.values())

    @cached_property
    def identity(self) -> str:
        """What changes with the file: whose rows may be kept."""
        stat = self.path.stat()
        said = (str(self.path.resolve()), stat.st_size, stat.st_mtime_ns, self.sight.projector)
        return repr(said)

    def encode(self, pixels: np.ndarray, progress: Progress | None = None) -> Seen:
        """Return what the text model gets of a view.

        ``pixels``: float32 (3, height, width), normalised by the sight's mean and deviation.
        UsageError: another shape, sizes that the tower does not take, or values that are no
        numbers; ModelError: weights that are none. ``progress`` is told the share that is done,
        from 0 to 1, every 50 ms.
        """
        pixels = np.ascontiguousarray(pixels, np.float32)
        if pixels.ndim != 3 or pixels.shape[0] != 3:
            raise UsageError(f"a view has the shape (3, height, width), not {pixels.shape}")
        if not np.isfinite(pixels).all():
            raise UsageError("a view holds values that are no numbers")
        grid = self.sight.grid(*pixels.shape[1:])
        self._weights.check_unchanged()
        found = self.retina.run(pixels, progress)
        if not np.isfinite(found).all():
            raise ModelError(f"{printable(self.path)}: what it sees are no numbers: it is damaged")
        rows, n = found[:, : self.n_text], self.n_text
        deeper = [found[:, n * (i + 1) : n * (i + 2)] for i in range(len(self.sight.deepstack))]
        stacked = np.stack(deeper) if deeper else np.zeros((0, len(rows), n), np.float32)
        rows = self.tower.finish(self._weights_of, self.sight, np.ascontiguousarray(rows), grid)
        return Seen(rows, stacked, grid)

    @property
    def _weights_of(self) -> Any:
        return _Named(self._weights)

    @property
    def retina(self) -> Retina:
        """What computes, made on first use: numba and torch take a second to import."""
        if self._retina is None:
            made: Any
            if self._device == CPU:
                from ggq.runtime.engine.cpu.eyes import CPURetina

                made = CPURetina(self.tower, self.sight, self._weights, self._threads)
            else:
                from ggq.runtime.engine.torch.eyes import TorchRetina

                made = TorchRetina(self.tower, self.sight, self._weights, self._device.name)
            self._retina = made
        return self._retina

    def close(self) -> None:
        """End the threads, unmap the file."""
        if self._retina is not None:
            self._retina.close()
        self._file.close()

    def __enter__(self) -> Eyes:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Eyes({printable(self.path)}, {self.sight.projector})"


class _Named:
    """The one thing that a tower's `finish` asks of operations: tensors by name."""

    def __init__(self, weights: Weights):
        self._weights = weights

    def weight(self, name: str) -> Tensor:
        """Return the tensor; ModelError where the file has none."""
        if name not in self._weights:
            raise ModelError(f"the file has no tensor {name}")
        return self._weights[name]
