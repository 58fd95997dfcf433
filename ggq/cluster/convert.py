"""A conversion on a cluster: the driver plans, the nodes encode files and run calibration windows.

Each node opens the source itself and plans the same conversion; a node whose plan or source is
another one ends the run. Files are made as `ggq.converters.parts` has them: what is there is not
done again. Which passes are shared out is said here, how is theirs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from copy import copy
from dataclasses import dataclass, replace
from importlib.util import find_spec
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

import ggq
from ggq.cluster.connect import alone_on_node
from ggq.cluster.rates import Rates
from ggq.cluster.tasks import Share, each
from ggq.converters import job as local
from ggq.converters.calibration.importance import Heard, Hearing, wants_torch
from ggq.converters.conversion import Conversion, Progress
from ggq.converters.encode import SLAB_ELEMENTS
from ggq.converters.identity import identity
from ggq.converters.imatrix import Imatrix
from ggq.converters.parts import Parts, Work, Written, refuse_one_file, refuse_passes
from ggq.converters.prepasses.base import Pass
from ggq.converters.prepasses.gptq import GPTQ
from ggq.converters.prepasses.imatrix import Importance
from ggq.converters.prepasses.solving.hessian import Hessian
from ggq.converters.prepasses.solving.problems import Problem, solve
from ggq.converters.prepasses.solving.solver import Solution
from ggq.errors import GGQError, UsageError, printable
from ggq.extras import how_to_install

__all__ = ["OnCluster", "task_bytes"]

SHARED = ("imatrix", "gptq", "activations")  # the last runs here: one forward of the model
_PROCESS = 500_000_000  # Python, numba, Ray; with torch 150 MB more
_SLABS = 6  # float32 slabs that a thread has at once: read, encoded, waiting to be written


@dataclass(frozen=True)
class Asked:
    """What a node plans: a request without passes, and how to know that it is the same."""

    request: local.Request
    digest: str
    version: str


@dataclass(frozen=True)
class Final:
    """What the passes have made of the plan, and where its parts lie."""

    items: list[Any]
    imatrix: Imatrix | None
    peaks: dict[str, float]
    folder: str


def task_bytes(job: Conversion, threads: int) -> int:
    """Return the memory that encoding a file takes: slabs, and of a folder the largest tensor."""
    slabs = 4 * SLAB_ELEMENTS * _SLABS * threads
    whole = max((prod(t.shape) for t in job.tensors.values()), default=0)
    return _PROCESS + slabs + (whole if job.split_bytes != job.options.split_max_bytes else 0)


class OnCluster(Work):
    """The work of one request, within `ggq.cluster.connect.connected`."""

    def __init__(
        self,
        request: local.Request,
        cpus: int,
        memory: int | None,
        tell: Callable[[str], None],
    ) -> None:
        """``cpus``: of a task; ``memory``: bytes that it reserves, None: by what it has to do."""
        self.request, self.tell = request, tell
        self._cpus, self._memory = cpus, memory
        self._asked: Asked | None = None
        self._parts: Parts | None = None

    def passes(self, job: Conversion, passes: Sequence[Pass]) -> Sequence[Pass]:
        """Have the nodes run the windows of importance; UsageError for passes of one machine."""
        refuse_passes(passes, "--cluster", f"of the passes {', '.join(SHARED)} can be shared out "
                      "(docs/scale.md)", SHARED)  # fmt: skip
        refuse_one_file(job, "--cluster")
        self._asked = self._question(job)
        passes = [copy(one) for one in passes]  # the caller's own stay as they are
        for one in passes:
            if isinstance(one, Importance):
                one.measure = self._measure
            if isinstance(one, GPTQ):
                one.solve = self._solve
        return passes

    def write(self, job: Conversion, progress: Progress | None) -> Written:
        """Have the nodes encode the files that are missing; name all when they are there."""
        assert self._asked is not None
        if _changed(job):
            return super().write(job, progress)  # finished blocks, which are here and nowhere else
        self._parts = parts = Parts(job)
        parts.folder.mkdir(exist_ok=True)
        final = Final(job.items, job.imatrix, job.peaks, str(parts.folder.absolute()))
        files = parts.files
        total, done, rates = sum(nbytes for _, nbytes in files), 0, Rates("MB", 1e6)
        shared = self._asked, final
        found = each(_encode, range(len(files)), shared, self._share(job), self.tell, ordered=False)
        for n, (index, made) in enumerate(found, 1):
            done += files[index][1]
            if made.value:
                rates.add(made.node, files[index][1], made.peak)
            if progress:
                progress(done, total, f"{n} of {len(files)} files, {rates}")
        if missing := parts.missing():
            raise GGQError(f"{printable(parts.path(missing[0]))} {_NOT_SHARED}")
        rates.tell(self.tell)
        return Written(parts.finish())

    def stopped(self) -> str:
        """Return what there is to be said of a run that was interrupted."""
        if self._parts is None or not self._parts.folder.exists():
            return "stopped before any file was made"
        n = len(self._parts.files)
        done = n - len(self._parts.missing())
        where = printable(self._parts.folder)
        return f"stopped with {done} of {n} files in {where}: the same command goes on"

    def _share(self, job: Conversion) -> Share:
        return Share(self._cpus, self._memory or task_bytes(job, self._cpus))

    def _question(self, job: Conversion) -> Asked:
        """Return what the nodes are asked to plan: with the types that this one has chosen."""
        options = replace(
            job.options,
            threads=self._cpus,
            provenance=False,  # the driver's own items are used
            force=True,
            merge_lora=tuple(map(_whole, job.options.merge_lora)),
            base=job.options.base and _whole(job.options.base),
        )
        plain = local.Request(
            source=_whole(self.request.source),
            out=job.out.absolute(),
            type=job.plan.file_type.name,
            imatrix=job.imatrix,
            options=options,
        )
        return Asked(plain, identity(job), ggq.__version__)

    def _measure(
        self, job: Conversion, windows: np.ndarray, head: bool, backend: str | None
    ) -> Iterator[Heard]:
        """Yield what the nodes hear of each window, in order."""
        if _changed(job):  # the nodes have the source's own tensors
            yield from map(Hearing(job, head, backend).window, windows)
            return
        where, of_torch = "reference", 0
        if wants_torch(backend):
            from ggq.runtime.backends.torch.threads import threads

            where, of_torch = "torch", threads()  # torch is here then, as in a local run
        rates = Rates("windows")
        shared = self._asked, head, where, of_torch
        for _, made in each(_hear, windows, shared, self._share(job), self.tell):
            rates.add(made.node, 1, made.peak)
            yield made.value
        rates.tell(self.tell)

    def _solve(self, problems: Iterable[Problem]) -> Iterator[Solution]:
        """Yield what the nodes find for each problem, in order."""
        share = Share(self._cpus, self._memory or 3 * _PROCESS)
        for _, made in each(_solved, _sent(problems), (self._cpus,), share, self.tell):
            yield made.value


def _whole(path: str | os.PathLike[str]) -> str:
    """Return the absolute path of what is there; the name of a repository as it is."""
    return os.path.abspath(path) if Path(path).exists() else os.fspath(path)


def _changed(job: Conversion) -> bool:
    """Tell whether a pass has put other tensors in the place of the source's."""
    return any(tensor is not job.original.get(name) for name, tensor in job.tensors.items())


def _sent(problems: Iterable[Problem]) -> Iterator[tuple[Problem, list[Any]]]:
    """Yield problems without their moments, and a reference to these: sent once, factored here."""
    import ray

    last, sent = None, None
    for one in problems:
        if one.hessian is not last:
            if one.shared:
                one.hessian.factor(one.damp)  # it is kept, and goes with them
            last, sent = one.hessian, ray.put(one.hessian)
        yield replace(one, hessian=NOTHING), [sent]


def _solved(item: tuple[Problem, list[Any]], threads: int) -> Solution:
    """Solve a problem, on a node."""
    import ray

    problem, (moments,) = item
    return solve(replace(problem, hessian=ray.get(moments)), threads)


NOTHING = Hessian(np.zeros((0, 0)), "")
_NOT_SHARED = "is not there: OUT must lie on a disk that all nodes share"
# What a process of a node keeps between tasks: one conversion, by its digest.
_open: dict[str, Conversion] = {}
_hearing: dict[Any, Hearing] = {}
_files = ExitStack()


def _opened(asked: Asked) -> Conversion:
    """Return this node's own plan of the conversion; GGQError where it is not the driver's."""
    if asked.digest in _open:
        return _open[asked.digest]
    if asked.version != ggq.__version__:
        raise UsageError(f"has ggq {ggq.__version__}, the driver {asked.version}")
    _files.close()
    _open.clear()
    with alone_on_node():  # one at a time fetches what is not there
        job, _ = _files.enter_context(local.planned(asked.request))
    if identity(job) != asked.digest:
        raise UsageError(f"{printable(asked.request.source)} is another model than the driver's")
    _open[asked.digest] = job
    return job


def _encode(index: int, asked: Asked, final: Final) -> bool:
    """Make a part, on a node; return whether it was not there."""
    job = _opened(asked)
    job.items, job.imatrix, job.peaks = final.items, final.imatrix, final.peaks
    parts = Parts(job)
    if parts.folder != Path(final.folder):
        raise UsageError(f"plans {printable(parts.folder)}, the driver {printable(final.folder)}")
    if not parts.folder.is_dir():
        raise UsageError(f"{printable(parts.folder)} {_NOT_SHARED}")
    if not parts.missing([index], sure=True):
        return False
    parts.make(index)
    return True


def _hear(ids: np.ndarray, asked: Asked, head: bool, backend: str, of_torch: int) -> Heard:
    """Run one window, on a node, with as many threads of torch as a local run would have."""
    job = _opened(asked)
    if backend == "torch":
        if find_spec("torch") is None:
            raise UsageError(f"to calibrate, {how_to_install('torch')}")
        from ggq.runtime.backends.torch.threads import threads

        threads(of_torch)
    key = (asked.digest, head, backend)
    if key not in _hearing:
        _hearing.clear()
        _hearing[key] = Hearing(job, head, backend)
    return _hearing[key].window(ids)
