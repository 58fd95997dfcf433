"""The CPU back end: recording ``forward(ops)`` once yields a plan of compiled kernels.

Values are made when something needs them, in the form it needs (float32 or quantized to 8 bit), so
a norm that only feeds quantized weights writes no floats. It knows no operation.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from ggq.errors import ModelError
from ggq.machine_code import make_ready
from ggq.models.hparams import HParams
from ggq.quants.kernels import abi
from ggq.runtime.backends.base import Ops
from ggq.runtime.backends.numba.plan import (
    ONE,
    OUTPUTS,
    OUTPUTS_FEW,
    OUTPUTS_MANY,
    TOKENS,
    Buffer,
    Plan,
    Recorder,
)
from ggq.runtime.kernels.walk import ENTRIES

__all__ = ["FEW", "NumbaOps", "Value", "compiled", "float_bits", "record"]

FEW = 4  # up to this many tokens the dot kernels read native blocks; above, tiles pay


@cache
def compiled(builder: Callable[[], Any]) -> Any:
    """Return the kernel that ``builder`` compiles, once per process."""
    return builder()


def float_bits(value: float) -> int:
    """Return a float32's bits as the low half of an argument slot."""
    return struct.unpack("<i", struct.pack("<f", value))[0]


@dataclass(frozen=True)
class Rotation:
    """What a lazy rope would do: attention may do it itself and spare a pass."""

    source: Value
    table: int
    half: int
    neox: int


class Value:
    """An activation of ``width`` columns that is recorded when first asked for."""

    def __init__(self, ops: NumbaOps, width: int, slot: int, make: Callable[..., Buffer]):
        self.ops, self.width, self.slot = ops, width, slot
        self._make = make
        self._made: dict[str, Buffer] = {}
        self.rotation: Rotation | None = None

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
            fused = getattr(self._make, "quantizes", False) and "f32" not in self._made
            if fused:
                self._made["q8"] = self._make(self, "q8", None)
            else:
                self._made["q8"] = self.ops.quantize(self)
        return self._made["q8"]

    @property
    def adds_residual(self) -> bool:
        """Whether the maker can add a residual on the way out, and has not run yet."""
        return getattr(self._make, "adds", False) and not self._made

    def form(self, name: str) -> Buffer:
        """Return the buffer in the form "f32" or "q8"."""
        return self.q8() if name == "q8" else self.f32()


class NumbaOps(Ops):
    """Records one plan: for at most ``FEW`` tokens (``few``) or for up to ``max_tokens``."""

    backend = "numba"

    def __init__(self, weights: Mapping[str, Any], recorder: Recorder, inputs: Any, cache: Any):
        super().__init__(weights)
        self.recorder, self.inputs, self.cache = recorder, inputs, cache
        self.few = recorder.max_tokens <= FEW

    def value(self, width: int, slot: int, make: Callable[..., Buffer]) -> Value:
        """Return a lazy value; ``make(value, form, residual)`` records it, returns its buffer."""
        return Value(self, width, slot, make)

    def new(self, value: Value, form: str = "f32") -> Buffer:
        """Declare the buffer that holds ``value`` in a form, padded to whole super-blocks."""
        stride = abi.q8_bytes(value.width) if form == "q8" else 4 * abi.padded(value.width)
        return self.recorder.buffer(stride, value.slot)

    def quantize(self, value: Value) -> Buffer:
        """Record the quantization of a value to 8 bit."""
        from ggq.runtime.kernels import quantize

        return quantize.record(self, value)

    def kernels(self, weight: Any) -> Any:
        """Return the matmul kernels of a weight's block type."""
        return weight.type.matmul()

    def matmul_variants(self, slot: int) -> list[tuple[str, int]]:
        """Return (kernel, state slot that switches it on) for tokens or gathered outputs."""
        if slot == TOKENS:
            return [("few" if self.few else "many", ONE)]
        return [("few", ONE)] if self.few else [("few", OUTPUTS_FEW), ("many", OUTPUTS_MANY)]


def record(architecture: Any, hp: HParams, ops: NumbaOps) -> Plan:
    """Record the architecture's forward pass and return its plan; the output holds the logits."""
    logits = _forward(architecture, hp, ops)
    kernels = [*ENTRIES, *ops.recorder.kernels]
    if not all(kernel.is_ready() for kernel in kernels):
        # What the other plan needs is compiled in the same go: not in the midst of an answer.
        size = ops.inputs.max_tokens if ops.few else FEW
        other = NumbaOps(ops.weights, Recorder(size, ops.recorder.state), ops.inputs, ops.cache)
        _forward(architecture, hp, other)
        make_ready([*kernels, *other.recorder.kernels])
    return ops.recorder.finish(logits)


def _forward(architecture: Any, hp: HParams, ops: NumbaOps) -> Buffer:
    logits = architecture.forward(ops, hp)
    if logits.slot != OUTPUTS:
        raise ModelError(f"{hp.arch}: forward() does not gather its outputs")
    return logits.f32()
