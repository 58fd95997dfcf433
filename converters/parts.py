"""A conversion in parts: each file of its output by itself, on any machine, then all of them named.

The parts lie in a folder beside the output whose name tells of what they are parts; a part counts
when its SHA-256 stands beside it. Who makes which, and how often, does not matter. It knows no
cluster: `Work` is who does the work of a conversion, here all of it.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ggq.converters.conversion import Conversion, Progress
from ggq.converters.identity import unfinished
from ggq.converters.prepasses.base import Pass, Prepass
from ggq.errors import UsageError, exists_error, option, printable, reason
from ggq.gguf import leftovers
from ggq.hub import file_sha256

try:
    import fcntl
except ImportError:  # Windows: two tasks that end at the same time may both name the parts
    fcntl = None  # type: ignore[assignment]

__all__ = ["Parts", "Shard", "Work", "Written", "refuse_one_file", "refuse_passes"]

_LOCK = "naming.lock"
_TASK = re.compile(r"([0-9]{1,6})/([0-9]{1,6})")


class Parts:
    """The parts of one planned conversion; ``files``: names and sizes, as its summary's shards."""

    def __init__(self, job: Conversion) -> None:
        """Find the folder, which may not be there yet; UsageError where the output's name is taken.

        Passes have run: what they chose is part of what the parts are parts of.
        """
        job.check_target()
        self.job, self.files = job, job.summary().shards
        matrix = job.imatrix.values if job.imatrix else {}
        digest = hashlib.sha256(job.described())
        for name in sorted(matrix):
            digest.update(name.encode() + matrix[name].tobytes())
        facts = digest.hexdigest(), job.options.via, sorted(job.peaks.items())
        self.folder = unfinished(job, *facts)
        for i, (final, _) in enumerate(self.files):
            if job.options.force or not os.path.lexists(final):
                continue
            part = self.path(i)  # that a stopped run has named already is no matter
            if not (part.exists() and final.exists() and final.samefile(part)):
                raise exists_error(final)

    def path(self, index: int) -> Path:
        """Return where a part lies until all are there."""
        return self.folder / self.files[index][0].name

    def missing(self, of: Iterable[int] | None = None, sure: bool = False) -> list[int]:
        """Return which are not there, or not whole; ``sure``: their bytes are read, too."""
        wanted = range(len(self.files)) if of is None else of
        return [i for i in wanted if not self._is_there(i, sure)]

    def make(self, index: int, progress: Progress | None = None) -> Path:
        """Make a part, and write its SHA-256 in the form that ``sha256sum -c`` reads."""
        path = self.path(index)
        try:
            self.folder.mkdir(exist_ok=True)
            self._receipt(index).unlink(missing_ok=True)
            self.job.make_part(index, self.folder, progress)
            temp = leftovers.temporary(self._receipt(index))
            temp.write_text(f"{file_sha256(path)}  {path.name}\n", "ascii")
            temp.replace(self._receipt(index))
        except OSError as error:
            raise UsageError(f"{printable(self.folder)}: {reason(error)}") from None
        return path

    def finish(self) -> list[Path]:
        """Give all parts their final names and return these; the folder is gone then."""
        with self._alone() as first:
            if first:
                made = self.job.put_together(self.folder)
                shutil.rmtree(self.folder, ignore_errors=True)
                return made
        return [path for path, _ in self.files]  # another task has done it

    def _receipt(self, index: int) -> Path:
        path = self.path(index)
        return path.with_name(f"{path.name}.sha256")

    def _is_there(self, index: int, sure: bool) -> bool:
        path, nbytes = self.path(index), self.files[index][1]
        with suppress(OSError):
            told = self._receipt(index).read_text("ascii").split()
            if told[1:] == [path.name] and path.stat().st_size == nbytes:
                return not sure or file_sha256(path) == told[0]
        return False

    @contextmanager
    def _alone(self) -> Iterator[bool]:
        """Wait for others that name the parts; yield whether they are still to be named."""
        try:
            file = (self.folder / _LOCK).open("w")
        except FileNotFoundError:
            yield False
            return
        with file:
            if fcntl:
                with suppress(OSError):  # a file system without locks
                    fcntl.flock(file, fcntl.LOCK_EX)
            yield self.folder.exists() and not self.missing()


@dataclass(frozen=True)
class Written:
    """What of a conversion is on disk: final files, or parts while ``missing`` others are not."""

    paths: list[Path]
    missing: int = 0


class Work:
    """Who does the work of a conversion: by default this process, all of it."""

    def passes(self, job: Conversion, passes: Sequence[Pass]) -> Sequence[Pass]:
        """Return the passes to run, before any work; UsageError for one that is not possible."""
        return passes

    def write(self, job: Conversion, progress: Progress | None) -> Written:
        """Encode and write, when the passes have run."""
        return Written(job.run(progress))


@dataclass(frozen=True)
class Shard(Work):
    """Task ``task`` of ``of`` (from 1) makes every ``of``-th file; the last to end names all."""

    task: int
    of: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Return the share that ``I/N`` asks for; UsageError."""
        found = _TASK.fullmatch(text.strip())
        task, of = (int(found[1]), int(found[2])) if found else (0, 0)
        if not 1 <= task <= of:
            what = f"{option('--shard')} {printable(text)}"
            raise UsageError(f"{what}: expected I/N, task I of N from 1, such as 3/16")
        return cls(task, of)

    def passes(self, job: Conversion, passes: Sequence[Pass]) -> Sequence[Pass]:
        """Refuse all: what a pass learns of one layer the next one needs."""
        refuse_passes(passes, option("--shard"), "tasks do not hear of each other; "
                      f"importance may come from a file ({option('--imatrix')})")  # fmt: skip
        refuse_one_file(job, option("--shard"))
        if (n := len(job.summary().shards)) < self.of:
            job.warnings.append(
                f"{n} file{'s'[: n > 1]} for {self.of} tasks: the others have nothing to do"
            )
        return passes

    def write(self, job: Conversion, progress: Progress | None) -> Written:
        """Make this task's parts, but those that an earlier run has made whole."""
        parts = Parts(job)
        mine = range(self.task - 1, len(parts.files), self.of)
        for index in parts.missing(mine, sure=True):
            parts.make(index, progress)
        if left := len(parts.missing()):
            return Written([parts.path(i) for i in mine], left)
        return Written(parts.finish())


def refuse_one_file(job: Conversion, flag: str) -> None:
    """Refuse an output that is not cut, whatever its size; UsageError."""
    if job.split_bytes is None:
        split = option("--split-max-size")
        raise UsageError(f"{flag}: a task makes whole files: give {split}, too, such as 5G")


def refuse_passes(passes: Sequence[Pass], flag: str, why: str, but: Sequence[str] = ()) -> None:
    """Refuse passes by name, except those named in ``but``; UsageError."""
    names = [one.name if isinstance(one, Prepass) else repr(one) for one in passes]
    if refused := [name for name in names if name not in but]:
        raise UsageError(f"{flag}: not with pre-pass {printable(', '.join(refused))}: {why}")
