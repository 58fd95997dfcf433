"""A vision tower on the CPU: a plan for each size of picture, run by threads of its own."""

from __future__ import annotations

import numpy as np

from ggq.machine_code import make_ready
from ggq.models.vision.sight import Sight
from ggq.models.vision.tower import Tower
from ggq.runtime.backends.numba.pictures import PictureOps, padded_rows
from ggq.runtime.backends.numba.plan import Plan
from ggq.runtime.engine.cpu.executor import Executor
from ggq.runtime.engine.retina import PictureWeights, Progress
from ggq.runtime.kernels.walk import ENTRIES

__all__ = ["CPURetina"]


class CPURetina:
    """Encodes views; keeps the plan of the size that it saw last."""

    def __init__(self, tower: Tower, sight: Sight, weights: PictureWeights, n_threads: int):
        self._tower, self._sight, self._weights = tower, sight, weights
        self._executor = Executor(n_threads)
        self._size: tuple[int, ...] | None = None
        self._ops: PictureOps | None = None
        self._plan: Plan | None = None
        self._rows = 0
        self.profile: dict[str, int] | None = None

    def run(self, pixels: np.ndarray, progress: Progress | None = None) -> np.ndarray:
        """Return the rows of a view, float32 (tokens, width)."""
        patches = self._tower.patches(self._sight, pixels)
        if pixels.shape != self._size:
            self._record(pixels.shape, patches)
        assert self._ops is not None and self._plan is not None
        self._ops.picture[:] = patches
        self._executor.run(self._plan, self.profile, progress)
        return self._plan.output_rows(self._rows, self._width)

    def _record(self, size: tuple[int, ...], patches: np.ndarray) -> None:
        self._size = self._plan = self._ops = None  # the memory of one size at a time
        ops = PictureOps(self._weights, padded_rows(patches))
        view = self._sight.view(*size[1:])
        value = self._tower.forward(ops, self._sight, view)
        output = value.f32()
        kernels = [*ENTRIES, *ops.recorder.kernels]
        if not all(kernel.is_ready() for kernel in kernels):
            make_ready(kernels)
        self._ops, self._plan, self._size = ops, ops.recorder.finish(output), size
        self._rows, self._width = ops.count(value.slot), value.width

    def close(self) -> None:
        """End the threads."""
        self._executor.close()
