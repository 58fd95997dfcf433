"""Activations while a plan is recorded: made when something needs them, in the form it needs.

Forms are float32 and quantized to 8 bit: a norm that only feeds quantized weights writes no floats.
It knows no operation and no back end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ggq.runtime.backends.numba.plan import Buffer

__all__ = ["DECODE_TOKENS", "Rotation", "Value"]

DECODE_TOKENS = 8  # up to this many tokens the dot kernels read native blocks; above, tiles pay


@dataclass(frozen=True)
class Rotation:
    """What a lazy rope would do: attention may do it itself and spare a pass."""

    source: Value
    table: int
    half: int
    neox: int


class Value:
    """An activation of ``width`` columns that is recorded when first asked for.

    ``make(value, form, residual)`` records it and returns its buffer; ``adds_residual``: it can add
    a residual on the way out; ``quantizes``: it can write the form "q8" as well as "f32".
    """

    def __init__(
        self,
        ops: Any,
        width: int,
        slot: int,
        make: Callable[..., Buffer],
        *,
        adds_residual: bool = False,
        quantizes: bool = False,
        rotation: Rotation | None = None,
    ):
        self.ops, self.width, self.slot = ops, width, slot
        self.rotation = rotation
        self._make, self._adds, self._quantizes = make, adds_residual, quantizes
        self._made: dict[str, Buffer] = {}

    def f32(self, residual: Buffer | None = None) -> Buffer:
        """Return the float32 buffer, plus ``residual`` if the maker can add it."""
        if residual is not None:
            return self._make(self, "f32", residual)
        if "f32" not in self._made:
            self._made["f32"] = self._make(self, "f32", None)
        return self._made["f32"]

    def q8(self) -> Buffer:
        """Return the buffer quantized to 8 bit (abi.py)."""
        if "q8" not in self._made:
            if self._quantizes and "f32" not in self._made:
                self._made["q8"] = self._make(self, "q8", None)
            else:
                self._made["q8"] = self.ops.quantize(self)
        return self._made["q8"]

    @property
    def adds_residual(self) -> bool:
        """Whether the maker can add a residual on the way out, and has not run yet."""
        return self._adds and not self._made

    def form(self, name: str) -> Buffer:
        """Return the buffer in the form "f32" or "q8"."""
        return self.q8() if name == "q8" else self.f32()
