"""What a pre-pass is: a callable that alters a `Conversion` before it runs, found by file name.

A file of this folder with a dataclass named ``PREPASS`` is ``--prepass NAME:field=value,...``. A
pass may replace tensors (folds), set the importance, or hand over finished blocks. It knows no
pass by name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

import numpy as np

from ggq.arguments import check_fields
from ggq.errors import UsageError, printable

__all__ = ["Packed", "Prepass", "Replaced", "names", "parse", "require_torch"]

Progress = Callable[[int, int, str], None]


@dataclass
class Prepass:
    """Base of the passes: what all of them take.

    ``calibration``: text or jsonl file, None for the text that comes with ggq; ``tokens``: how many
    of its tokens, in windows of ``n_ctx`` spread evenly over it (0: all).
    """

    calibration: str | Path | None = None
    tokens: int = 32768
    n_ctx: int = 512
    progress: Progress | None = None

    def __post_init__(self) -> None:
        """Refuse values of other types and windows of nothing; UsageError."""
        check_fields(self)
        if self.n_ctx < 4 or self.tokens < 0:
            raise UsageError(f"{self.tokens} tokens in windows of {self.n_ctx}: none to calibrate")

    def __call__(self, job: Any) -> None:
        raise NotImplementedError

    def note(self, job: Any, name: str, dataset: str) -> None:
        """Write into the file what was done with which text."""
        from ggq.converters.general import Item
        from ggq.gguf import spec

        numbers = {k: v for k, v in vars(self).items() if isinstance(v, (bool, int, float))}
        text = ",".join(f"{k}={v}" for k, v in numbers.items())
        job.items.append(Item(f"ggq.prepass.{name}", f"{text} on {Path(dataset).name}", spec.STR))

    def windows(self, job: Any) -> Any:
        """Return the calibration of this pass."""
        from ggq.converters.calibration import calibrate

        limit = -(-self.tokens // self.n_ctx) if self.tokens else None
        return calibrate(job, self.calibration, self.n_ctx, limit, spread=True, starts=True)


@dataclass(frozen=True)
class Packed:
    """A tensor whose blocks are ready: ``blocks`` uint8 (rows, row bytes) of ``type_name``."""

    name: str
    shape: tuple[int, ...]
    type_name: str
    blocks: np.ndarray

    def read(self, start: int, stop: int) -> np.ndarray:
        from ggq import quants

        return quants.get(self.type_name).dequantize(self.blocks[start:stop])

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


def require_torch(name: str) -> Any:
    """Return torch; UsageError where it is not installed."""
    try:
        return import_module("torch")
    except ImportError:
        raise UsageError(f"pre-pass {name}: to calibrate, pip install 'ggq[torch]'") from None


def names() -> list[str]:
    """Return the names of all passes: the files here that set PREPASS."""
    folder = Path(__file__).parent
    found = [m.name for m in iter_modules([str(folder)])]
    sources = {n: (folder / f"{n}.py").read_text(encoding="utf-8") for n in found}
    return sorted(n for n, source in sources.items() if "\nPREPASS = " in source)


def parse(text: str, **given: Any) -> Prepass:
    """Return the pass that ``NAME[:key=value,...]`` describes; ``given``: its defaults."""
    name, _, options = text.partition(":")
    if name not in names():
        raise UsageError(f"pre-pass {printable(name)}: unknown; one of {', '.join(names())}")
    kind = import_module(f"ggq.converters.prepasses.{name}").PREPASS
    known = {f.name: f for f in fields(kind)}
    values = dict(given)
    for part in filter(None, options.split(",")):
        key, equals, value = part.partition("=")
        if key not in known or not equals:
            raise UsageError(
                f"pre-pass {printable(text)}: {printable(key)} is not one of {', '.join(known)}"
            )
        values[key] = _value(text, key, value, type(known[key].default))
    return kind(**values)


def _value(text: str, key: str, value: str, kind: type) -> Any:
    if kind is bool:
        return value.lower() in ("1", "true", "yes", "on")
    try:
        return kind(value) if kind in (int, float) else value
    except ValueError:
        raise UsageError(
            f"pre-pass {printable(text)}: {key} must be a number, not {printable(value)}"
        ) from None
