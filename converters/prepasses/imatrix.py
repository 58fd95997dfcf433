"""Measures importance and hands it to the block search: what llama-imatrix and --imatrix do."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from ggq.converters import grids
from ggq.converters.calibration.importance import collect, wants_torch
from ggq.converters.conversion import Conversion
from ggq.converters.metadata.general import Item
from ggq.converters.prepasses.base import Prepass
from ggq.converters.prepasses.cost import Cost, Sizes
from ggq.converters.prepasses.resume import Store
from ggq.errors import printable
from ggq.gguf import spec

__all__ = ["Importance"]


@dataclass
class Importance(Prepass):
    """``head``: the embedding or output matrix gets importance, too, as the head sees its input.

    ``measure``: who runs the windows, as `collect` takes it; None: this process.
    """

    MEASURES: ClassVar[bool] = True

    head: bool = True
    measure: Any = field(default=None, init=False, repr=False, compare=False)

    def matters(self, job: Conversion) -> bool:
        """Return whether any planned type goes by importance: Q8_0 and F16 do not."""
        return any(grids.kind(kind).heeds_importance for _, kind in job.plan.types)

    def cost(self, sizes: Sizes) -> Cost:
        """One forward of all tokens through the blocks, whose weights stay in memory."""
        nbytes = 4.0 * (sizes.weights + sizes.n_ctx * sizes.widest)
        return Cost(sizes.forward(sizes.blocks), nbytes)

    def __call__(self, job: Conversion) -> None:
        """Set ``job.imatrix`` and the keys that tell where it came from."""
        calibration = self.windows(job)
        kept = Store(job, "imatrix", self.head, wants_torch(None), calibration.windows.tobytes())
        job.on_written.append(kept.remove)  # later passes or the writer may be killed
        told = {"progress": self.progress, "measure": self.measure, "kept": kept}
        sums = collect(job, calibration, self.head, **told)
        if job.imatrix and job.imatrix.path:  # the file's keys would tell of a matrix not used
            job.items = [i for i in job.items if not i.key.startswith("quantize.imatrix.")]
            given = f"importance matrix {printable(job.imatrix.path)}"
            job.warnings.append(f"the {given} is not used: pass imatrix measures its own")
        job.imatrix = sums.imatrix(calibration.dataset, len(calibration.windows))
        job.items += [
            Item("quantize.imatrix.dataset", calibration.dataset, spec.STR),
            Item("quantize.imatrix.entries_count", len(job.imatrix.values), spec.U32),
            Item("quantize.imatrix.chunks_count", len(calibration.windows), spec.U32),
        ]
        self.note(job, calibration.dataset)


PREPASS = Importance
