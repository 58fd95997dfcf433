"""What every back end shares: weights by name, and operations found as folders of ggq.runtime.ops.

It knows no operation and no array library.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Protocol

from ggq.errors import ModelError, printable

__all__ = ["LinearListener", "Ops", "Weight"]


LinearListener = Callable[[str, Any], None]


class Weight(Protocol):
    """One tensor of a model (ggq.runtime.engine.weights.Tensor): blocks of ``type`` in ``raw``."""

    type: Any  # ggq.quants.QuantType
    shape: tuple[int, ...]  # row length last
    raw: Any  # uint8 (rows, row bytes)

    def dequantized(self) -> Any:
        """Return the values as float32 in the tensor's shape."""


class Ops:
    """The operations of one back end: ``self.NAME(...)`` runs ``ops/NAME/BACKEND.py``."""

    backend: ClassVar[str]

    def __init__(self, weights: Mapping[str, Weight]):
        self.weights = weights
        self.linear_listeners: list[LinearListener] = []
        self.unread: frozenset[str] = frozenset()  # linears of whose result nobody makes use

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
        arrays; torch's are part of the graph where gradients are recorded. Those named in
        ``unread`` are told, too, and give one column in the place of their result: a head over a
        large vocabulary is most of a small model's work.
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
