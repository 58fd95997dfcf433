"""Measures importance and hands it to the block search: what llama-imatrix and --imatrix do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ggq.converters.general import Item
from ggq.converters.prepasses.base import Prepass
from ggq.errors import printable
from ggq.gguf import spec

__all__ = ["Importance"]


@dataclass
class Importance(Prepass):
    """``head``: the embedding or output matrix gets importance, too, as the head sees its input."""

    head: bool = True

    def __call__(self, job: Any) -> None:
        """Set ``job.imatrix`` and the keys that tell where it came from."""
        from ggq.converters.importance import collect

        calibration = self.windows(job)
        sums = collect(job, calibration, self.head, progress=self.progress)
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
        self.note(job, "imatrix", calibration.dataset)


PREPASS = Importance
