"""What a conversion is asked for, what it tells while it runs and what it returns: plain data.

How it is done is `job.py`'s.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from ggq.arguments import check_fields
from ggq.converters.conversion import Conversion, Options, Progress, Summary
from ggq.converters.imatrix import Imatrix
from ggq.converters.parts import Shard
from ggq.converters.projector import MMPROJ_TYPES
from ggq.errors import UsageError, option, printable
from ggq.outputs import not_of, output_file

if TYPE_CHECKING:
    from ggq.converters.prepasses.base import Pass

__all__ = ["TARGETS", "Events", "Request", "Result", "flag_of"]

TARGETS = ("target_size", "target_bpw", "target_kld")
DEFAULT_TYPE = "Q4_K_M"
MEASURED = (  # what asks for a model that runs
    *("quality", "prepasses", "recipe", "calibration", "imatrix", "plan", "report"),
    *("target_size", "target_bpw", "target_kld", "card"),
)
OF_WHOLE = (*TARGETS, "card", "report")  # what asks for all of the file


@dataclass(frozen=True)
class Request:
    """What to convert, into what and how; None where it is not asked for.

    ``type``: the recipe's own by default, else Q4_K_M. ``target_size`` (bytes of the file),
    ``target_bpw`` and ``target_kld`` (nats a token) choose a type for each tensor; ``plan``: JSON
    of such types, written with a target, else read. ``calibration``: the text of passes and
    targets. ``report``: a name in .html or .json. ``card``: measure the file against the
    original, into its keys. ``shard``: "I/N" where N tasks share the files of the output among
    them and this is the I-th.
    ``mmproj``: where the vision part goes, True for mmproj- and the name of ``out`` beside it.
    """

    source: str | os.PathLike[str]
    out: str | os.PathLike[str] | None = None
    type: str | None = None
    quality: str | None = None
    prepasses: Sequence[str | Callable[..., Any]] = ()
    recipe: str | os.PathLike[str] | None = None
    calibration: str | os.PathLike[str] | None = None
    imatrix: Imatrix | str | os.PathLike[str] | None = None
    target_size: int | None = None
    target_bpw: float | None = None
    target_kld: float | None = None
    plan: str | os.PathLike[str] | None = None
    report: str | os.PathLike[str] | None = None
    card: bool = False
    mmproj: str | os.PathLike[str] | bool = False
    mmproj_type: str | None = None
    shard: str | None = None
    options: Options = field(default_factory=Options)

    def __post_init__(self) -> None:
        """Refuse values of other types and what excludes each other; UsageError."""
        check_fields(self)
        bits = self.target_bpw
        if bits is not None and not 1 <= bits <= 32:  # nan is not, either
            raise UsageError(f"{option('--target-bpw')} {bits}: expected a number from 1 to 32")
        given = [name for name in TARGETS if getattr(self, name) is not None]
        if len(given) > 1:
            raise UsageError(f"{' and '.join(map(flag_of, given))}: give one of them")
        if self.target_kld is not None:
            self._check_divergence(self.target_kld)
        if self.recipe is not None and (self.quality or self.prepasses):
            without = f"no {option('--quality')} or {option('--prepass', 'prepasses')} with it"
            raise UsageError(f"{option('--recipe')} says which passes run: {without}")
        if self.plan is not None and not Path(self.plan).parent.is_dir():
            raise UsageError(f"{option('--plan')} {printable(self.plan)}: no such folder")
        if self.plan is not None and self.has_target:
            output_file(self.plan)
        read = [self.source, self.imatrix, self.calibration, None if self.has_target else self.plan]
        files = [one for one in read if isinstance(one, (str, os.PathLike))]
        written = (self.out, self.report, self.plan if self.has_target else None, self.mmproj)
        for path in (one for one in written if one and not isinstance(one, bool)):
            not_of(Path(path), *files)
        if self.options.base is not None:
            self._check_adapter()
        if self.shard is not None:
            Shard.parse(self.shard)
            self._check_alone((*OF_WHOLE, "mmproj"), f"a part of a file ({option('--shard')})")
        if self.options.mmproj:
            self._check_alone(MEASURED, "a projector file, whose tensors are not measured")
            if self.mmproj:
                raise UsageError(f"{option('--mmproj')} and --only-mmproj: give one of them")

    def _check_divergence(self, kld: float) -> None:
        """Refuse a divergence that is none, and what its many files cannot have; UsageError."""
        flag = option("--target-kld")
        if not 0 < kld < float("inf"):
            raise UsageError(f"{flag} {kld}: expected a number above 0, in nats a token")
        for name in ("report", "mmproj"):
            if getattr(self, name):
                what = "convert once more with the --plan that it writes"
                raise UsageError(f"{flag_of(name)}: not with {flag}, {what}")

    def _check_adapter(self) -> None:
        """Refuse for an adapter, which is stored as it is, all that measures; UsageError."""
        self._check_alone((*MEASURED, "mmproj"), "an adapter, which is kept")

    def _check_alone(self, names: Sequence[str], what: str) -> None:
        for name in names:
            if getattr(self, name):
                raise UsageError(f"{flag_of(name)}: not for {what}")

    @property
    def default_type(self) -> str:
        """The type where nothing says one: an adapter keeps its numbers, eyes theirs nearly."""
        if self.options.mmproj:
            return MMPROJ_TYPES[0]
        return DEFAULT_TYPE if self.options.base is None else "F32"

    @property
    def has_target(self) -> bool:
        """Whether types are to be chosen for a size or a divergence."""
        return any(getattr(self, name) is not None for name in TARGETS)


def flag_of(name: str) -> str:
    flag = {"prepasses": "prepass"}.get(name, name).replace("_", "-")
    return option(f"--{flag}", name)


class Events:
    """What a conversion tells while it runs; each method may be overridden, none must be."""

    def planned(self, conversion: Conversion, passes: Sequence[Pass]) -> None:
        """Everything is known and nothing done: keys, types, sizes and the passes to come."""

    def tried(self, nbytes: int, kld: float) -> None:
        """A file was made on the way to a divergence: its bytes, and what was measured of it."""

    def progress(self) -> AbstractContextManager[Progress | None]:
        """Return what is told of a piece of long work, for as long as it takes."""
        return nullcontext()


@dataclass(frozen=True)
class Result(Summary, Sequence[Path]):
    """What was written; a sequence of its paths: ``(path,) = ggq.convert(...)``.

    ``mmproj``: the projector file that was written beside the model. ``missing``: files that other
    tasks have still to make (``shard``); the paths are this one's parts until then.
    """

    paths: tuple[Path, ...]
    warnings: tuple[str, ...]
    mmproj: Path | None = None
    missing: int = 0

    @overload
    def __getitem__(self, index: int) -> Path: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Path, ...]: ...
    def __getitem__(self, index: int | slice) -> Path | tuple[Path, ...]:
        return self.paths[index]

    def __len__(self) -> int:
        return len(self.paths)

    def __hash__(self) -> int:
        return hash(self.paths)
