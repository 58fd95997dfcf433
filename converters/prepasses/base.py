"""What a pre-pass is: a callable that alters a `Conversion` before it runs, found by file name.

A file of this folder that ends in ``PREPASS = Class``, a dataclass, is ``--prepass NAME:field=
value,...`` and ``ggq.prepass.Class(field=value)``; it says what it needs and costs, too. A pass may
replace tensors (folds), set the importance, or hand over finished blocks. No pass is known by name
here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from math import inf
from pathlib import Path
from pkgutil import iter_modules
from typing import Any, ClassVar

import numpy as np

from ggq.arguments import check_fields
from ggq.converters import grids
from ggq.converters.calibration.text import Calibration, calibrate
from ggq.converters.conversion import Conversion, Progress
from ggq.converters.metadata.general import Item
from ggq.converters.prepasses.cost import Cost, Sizes
from ggq.errors import UsageError, printable
from ggq.extras import how_to_install
from ggq.gguf import spec
from ggq.quants.mixtures import UNQUANTIZED

__all__ = [
    "Packed",
    "Pass",
    "Prepass",
    "Replaced",
    "classes",
    "has_blocks",
    "load",
    "names",
    "parse",
]

Pass = Callable[[Conversion], Any]
_DECLARED = re.compile(r"^PREPASS = (\w+)$", re.MULTILINE)
_FLAGS = {
    **dict.fromkeys(("1", "true", "yes", "on"), True),
    **dict.fromkeys(("0", "false", "no", "off"), False),
}


@dataclass
class Prepass:
    """Base of the passes: what all of them take.

    ``calibration``: text or jsonl file, None for the text that comes with ggq; ``tokens``: how many
    of its tokens, in windows of ``n_ctx`` spread evenly over it (0: all). ``RANGES``: the least and
    the most that a number may be, by its field's name; where none is given it is not negative.
    ``MEASURES``: no type wants importance in vain after it. ``REFINES``: the codes of an earlier
    pass are kept, not chosen anew. ``GRIDS``: it works on the grids of serving engines, too.
    ``NEEDS``: libraries that ggq itself does not need, as they are imported; each is an extra of
    the package, too.
    """

    NEEDS: ClassVar[tuple[str, ...]] = ()
    RANGES: ClassVar[dict[str, tuple[float, float]]] = {}
    MEASURES: ClassVar[bool] = False
    REFINES: ClassVar[bool] = False
    GRIDS: ClassVar[bool] = True

    calibration: str | os.PathLike[str] | None = None
    tokens: int = 32768
    n_ctx: int = 512
    progress: Progress | None = None

    def __post_init__(self) -> None:
        """Refuse values of other types or out of range and windows of nothing; UsageError."""
        check_fields(self)
        for name in (f.name for f in fields(self) if f.init):
            value = getattr(self, name)
            least, most = self.RANGES.get(name, (0, inf))
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                continue
            if not (least <= value <= most and abs(value) < inf):
                span = f"at least {least:g}" if most == inf else f"from {least:g} to {most:g}"
                raise UsageError(f"{name}: expected a number {span}, not {value}")
        if self.n_ctx < 4:
            raise UsageError(f"n_ctx: expected windows of at least 4 tokens, not {self.n_ctx}")

    def __call__(self, job: Conversion) -> None:
        """Alter ``job``, a planned conversion."""
        raise NotImplementedError

    @property
    def name(self) -> str:
        """Return what the command line calls it: the name of its file."""
        return type(self).__module__.rpartition(".")[2]

    def cost(self, sizes: Sizes) -> Cost | None:
        """Return the work and the memory for a model and text of such sizes; None: unknown."""
        return None

    def matters(self, job: Conversion) -> bool:
        """Return whether the types of ``job`` leave anything to choose; else it is left out."""
        return True

    def check_needs(self) -> None:
        """Refuse to start without what ``NEEDS`` names; UsageError."""
        for library in self.NEEDS:
            if find_spec(library) is None:
                raise UsageError(f"pre-pass {self.name}: to calibrate, {how_to_install(library)}")

    def note(self, job: Conversion, dataset: str) -> None:
        """Write into the file what was done with which text."""
        numbers = {k: v for k, v in vars(self).items() if isinstance(v, (bool, int, float))}
        text = ",".join(f"{k}={v}" for k, v in numbers.items())
        job.items.append(
            Item(f"ggq.prepass.{self.name}", f"{text} on {Path(dataset).name}", spec.STR)
        )

    def windows(self, job: Conversion) -> Calibration:
        """Return the calibration of this pass."""
        limit = -(-self.tokens // self.n_ctx) if self.tokens else None
        return calibrate(job, self.calibration, self.n_ctx, limit, spread=True, starts=True)


def has_blocks(job: Conversion) -> bool:
    """Return whether any tensor is planned in a type of blocks: F16 rounds each weight alone."""
    return any(kind not in UNQUANTIZED for _, kind in job.plan.types)


@dataclass(frozen=True)
class Packed:
    """A tensor whose blocks are ready: ``blocks`` uint8 (rows, row bytes) of ``type_name``."""

    name: str
    shape: tuple[int, ...]
    type_name: str
    blocks: np.ndarray

    def read(self, start: int, stop: int) -> np.ndarray:
        return grids.kind(self.type_name).dequantize(self.blocks[start:stop])

    def raw(self, start: int, stop: int) -> np.ndarray:
        return self.blocks[start:stop]


@dataclass(frozen=True)
class Replaced:
    """A tensor with other values, float32 (rows, width): folded weights."""

    name: str
    shape: tuple[int, ...]
    values: np.ndarray
    type_name: str = "F32"

    def read(self, start: int, stop: int) -> np.ndarray:
        return self.values[start:stop]

    def raw(self, start: int, stop: int) -> None:
        return None


@cache
def classes() -> dict[str, str]:
    """Return class -> file of all passes: the files here that set PREPASS. None is imported."""
    folder = Path(__file__).parent
    found = {}
    for module in iter_modules([str(folder)]):
        if module.ispkg:
            continue
        source = (folder / f"{module.name}.py").read_text(encoding="utf-8")
        if declared := _DECLARED.search(source):
            found[declared[1]] = module.name
    return found


def names() -> list[str]:
    """Return the names of all passes, as the command line has them."""
    return sorted(classes().values())


def load(name: str) -> type[Prepass]:
    """Return the class of the pass that is called ``name``."""
    kind: type[Prepass] = import_module(f"ggq.converters.prepasses.{name}").PREPASS
    return kind


def parse(text: str, **given: Any) -> Prepass:
    """Return the pass that ``NAME[:key=value,...]`` describes; ``given``: its defaults."""
    name, _, options = text.partition(":")
    if name not in names():
        raise UsageError(f"pre-pass {printable(name)}: unknown; one of {', '.join(names())}")
    kind = load(name)
    known = {f.name: f for f in fields(kind) if f.init and f.name != "progress"}
    values = dict(given)
    for part in filter(None, options.split(",")):
        key, equals, value = part.partition("=")
        if key not in known or not equals:
            raise UsageError(
                f"pre-pass {printable(text)}: {printable(key)} is not one of {', '.join(known)}"
            )
        values[key] = _value(text, key, value, type(known[key].default))
    try:
        return kind(**values)
    except UsageError as error:
        raise UsageError(f"pre-pass {printable(text)}: {error}") from None


def _value(text: str, key: str, value: str, kind: type) -> Any:
    try:
        if kind is bool:
            return _FLAGS[value.lower()]
        return kind(value) if kind in (int, float) else value
    except (KeyError, ValueError):
        words = {bool: "true or false", int: "a whole number"}.get(kind, "a number")
        raise UsageError(
            f"pre-pass {printable(text)}: {key} must be {words}, not {printable(value)}"
        ) from None
