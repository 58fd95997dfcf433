"""What every back end is to the engine, and what all share: operations, found as folders.

It knows no operation.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar, Protocol

import numpy as np

from ggq.errors import ModelError, printable
from ggq.models.base import HParams
from ggq.runtime import ops
from ggq.runtime.cache.kvcache import KVCache, Sequence

__all__ = [
    "Architecture",
    "Backend",
    "LinearListener",
    "Ops",
    "Output",
    "Part",
    "Weight",
    "op_names",
]


LinearListener = Callable[[str, Any], None]


class Output(Enum):
    """What a step gives for the tokens that want a row."""

    LOGITS = "logits"
    HIDDEN = "hidden states"  # normed, before the head

    def width(self, hp: HParams) -> int:
        """Return the columns of a row."""
        return hp.n_vocab if self is Output.LOGITS else hp.n_embd


@dataclass(frozen=True)
class Part:
    """Tokens to append to one sequence in a step; ``wanted``: which of them ask for a row."""

    sequence: Sequence
    ids: np.ndarray  # int64
    wanted: np.ndarray  # bool


class Backend(Protocol):
    """A model on one kind of machine: its weights, its cache, and the forward pass over both.

    ``max_tokens``: the most tokens of a step. ``profile``: where steps add their nanoseconds by
    kind of operation, for back ends that can tell.
    """

    cache: KVCache
    max_tokens: int
    profile: dict[str, int] | None

    def run(self, parts: list[Part], output: Output) -> np.ndarray:
        """Evaluate the parts, for whose tokens their sequences have room.

        Returns float32 (wanted tokens, width) in the parts' order. Broken off by an exception it
        leaves the sequences' lengths as they were, their recurrent states undefined.
        """

    def close(self) -> None:
        """Give back threads and memory; no step follows."""


class Architecture(Protocol):
    """What a back end asks of a model (ggq.models.base.Architecture)."""

    def forward(self, ops: Any, hp: HParams) -> Any:
        """Record or compute one evaluation on ``ops``; return the rows of the gathered tokens."""


class Weight(Protocol):
    """One tensor of a model (ggq.runtime.engine.weights.Tensor): blocks of ``type`` in ``raw``."""

    type: Any  # ggq.quants.QuantType
    shape: tuple[int, ...]  # row length last
    raw: Any  # uint8 (rows, row bytes)

    def dequantized(self) -> Any:
        """Return the values as float32 in the tensor's shape."""


def op_names() -> list[str]:
    """Return the names of all operations, sorted: the sub-packages of ggq.runtime.ops."""
    return sorted(module.name for module in pkgutil.iter_modules(ops.__path__) if module.ispkg)


class Ops:
    """The operations of one back end: ``self.NAME(...)`` runs ``ops/NAME/BACKEND.py``."""

    backend: ClassVar[str]

    def __init__(self, weights: Mapping[str, Weight]):
        self.weights = weights
        self.linear_listeners: list[LinearListener] = []

    def __getattr__(self, name: str) -> Callable[..., Any]:
        # Only names that are not attributes come here; a found operation becomes one.
        package = f"ggq.runtime.ops.{name}"
        try:
            module = importlib.import_module(f"{package}.{self.backend}")
        except ModuleNotFoundError as error:
            if error.name not in (package, f"{package}.{self.backend}"):
                raise
            raise AttributeError(f"the {self.backend} back end has no operation {name}") from None
        run = functools.partial(module.run, self)
        setattr(self, name, run)
        return run

    def on_linear_input(self, listener: LinearListener) -> Callable[[], None]:
        """Call ``listener(weight name, input)`` at every linear; return a function that ends it.

        Only back ends that compute at once have inputs to tell, (n_rows, width) in their own
        arrays; torch's are part of the graph where gradients are recorded.
        """
        self.linear_listeners.append(listener)
        return lambda: self.linear_listeners.remove(listener)

    def number(self, name: str) -> float:
        """Return the single value of the tensor ``name``."""
        return float(self.weight(name).dequantized().ravel()[0])

    def has(self, name: str) -> bool:
        """Return whether the model holds the tensor ``name``."""
        return name in self.weights

    def weight(self, name: str) -> Weight:
        """Return the tensor ``name``; ModelError where the model has none."""
        try:
            return self.weights[name]
        except KeyError:
            raise ModelError(f"the model has no tensor {printable(name)}") from None
