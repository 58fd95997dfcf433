"""Trains codes, scales and norms towards the original model, on exactly the values that are stored.

Block by block towards the teacher's residual stream, from what the quantized model really sees,
then end to end towards the teacher's predictions (KL). It starts from what earlier passes chose and
keeps a step only where windows that it does not train on say that it helped.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import ClassVar

from ggq.converters.conversion import Conversion
from ggq.converters.prepasses.base import Prepass, has_blocks
from ggq.converters.prepasses.cost import Cost, Sizes
from ggq.errors import UsageError

__all__ = ["Distill"]

MIN_WINDOWS = 8


@dataclass
class Distill(Prepass):
    """``steps`` a block and ``final`` steps end to end (0: none), each on ``batch`` windows.

    ``reach``: how far a code may move in all steps of a block; ``rate``: how far scales and norms
    move in one, as a share of their size. Codes that an earlier pass chose together stay, scales
    follow. End to end scales and norms move by ``gain`` times that rate; with ``codes`` codes as
    well, from amid their cells, so that ``reach`` must exceed 0.5 to change any. One window of
    ``held``, eight at least, judges. ``memory``: GB that training end to end may take.
    """

    GRIDS: ClassVar[bool] = False
    NEEDS: ClassVar[tuple[str, ...]] = ("torch",)
    RANGES: ClassVar[dict[str, tuple[float, float]]] = {"batch": (1, inf), "held": (1, inf)}
    REFINES: ClassVar[bool] = True

    steps: int = 32
    final: int = 16
    batch: int = 4
    reach: float = 0.4
    rate: float = 5e-4
    gain: float = 0.25
    held: int = 8
    norms: bool = True
    codes: bool = False
    memory: float = 8.0
    seed: int = 0

    def matters(self, job: Conversion) -> bool:
        """Return whether there are blocks to choose."""
        return has_blocks(job)

    def cost(self, sizes: Sizes) -> Cost:
        """Teacher and student by blocks, steps forward and back, looks at the windows held back."""
        batch = self.batch * sizes.n_ctx
        looks = 5 * sizes.tokens / self.held
        work = 4 * sizes.forward(sizes.blocks)
        work += 1.3 * (self.steps * 6 * batch + looks * 2) * sizes.blocks
        work += (self.final * 8 * batch + bool(self.final) * looks * 4) * sizes.weights
        n_layers = max(1, len(sizes.inputs) // 4)
        streams = 12.0 * sizes.tokens * sizes.widest
        state = min((36.0 if self.codes else 16.0) * sizes.weights, self.memory * 1e9)
        end = state if self.final else 0.0
        peak = max(streams + 40.0 * sizes.blocks / n_layers, end)
        return Cost(work, 6.0 * sizes.weights + peak)

    def __call__(self, job: Conversion) -> None:
        """Replace every quantized matrix and the norms of ``job`` by what training made of them."""
        from ggq.converters.prepasses.training.distillation import Distillation

        calibration = self.windows(job)
        found = len(calibration.windows)
        if found < MIN_WINDOWS:
            what = f"{found} windows are too few to distill, it needs {MIN_WINDOWS}"
            raise UsageError(f"{calibration.dataset}: {what}")
        run = Distillation(self, job, calibration.windows)
        run.by_blocks()
        run.end_to_end()
        job.tensors = {**job.tensors, **run.tensors()}
        self.note(job, calibration.dataset)


PREPASS = Distill
