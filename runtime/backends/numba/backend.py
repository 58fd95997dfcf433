"""The CPU back end: recording ``forward(ops)`` once yields a plan of compiled kernels.

It knows no operation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ggq.errors import ModelError
from ggq.machine_code import make_ready
from ggq.quants.kernels import abi
from ggq.runtime.backends.base import Ops
from ggq.runtime.backends.numba.plan import (
    ONE,
    OUTPUTS,
    OUTPUTS_DECODE,
    OUTPUTS_PREFILL,
    TOKENS,
    Buffer,
    Plan,
    Recorder,
    Work,
)
from ggq.runtime.backends.numba.values import DECODE_TOKENS, Value
from ggq.runtime.kernels.quantize import quantize
from ggq.runtime.kernels.walk import ENTRIES

if TYPE_CHECKING:
    from ggq.models.hparams import HParams

__all__ = ["DECODE_TOKENS", "NumbaOps", "Value", "record"]


class NumbaOps(Ops):
    """Records one plan: for decoding, at most ``DECODE_TOKENS`` tokens, or up to ``max_tokens``."""

    backend = "numba"

    def __init__(
        self,
        weights: Mapping[str, Any],
        recorder: Recorder,
        inputs: Any,
        cache: Any,
        adapters: Sequence[Any] = (),
    ):
        super().__init__(weights)
        self.adapters = adapters
        self.recorder, self.inputs, self.cache = recorder, inputs, cache
        # a dictionary says nothing of itself
        self.beyond_memory: bool = getattr(weights, "beyond_memory", False)
        self.decoding = recorder.max_tokens <= DECODE_TOKENS
        self._made: dict[Any, Any] = {}

    def value(self, width: int, slot: int, make: Callable[..., Buffer], **traits: Any) -> Value:
        """Return a lazy value; what ``make`` is and which traits there are: see Value."""
        return Value(self, width, slot, make, **traits)

    def once(self, key: Any, make: Callable[[], Any]) -> Any:
        """Return what ``make()`` gave when this plan first asked for ``key``."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def new(self, value: Value, form: str = "f32") -> Buffer:
        """Declare the buffer that holds ``value`` in a form, padded to whole super-blocks."""
        stride = abi.q8_bytes(value.width) if form == "q8" else 4 * abi.padded(value.width)
        return self.recorder.buffer(stride, value.slot)

    def quantize(self, value: Value) -> Buffer:
        """Record the quantization of a value to 8 bit."""
        source, out = value.f32(), self.new(value, "q8")
        blocks = abi.padded(value.width) // abi.SUPER
        self.recorder.row(
            "quantize",
            quantize,
            Work(items=blocks, slot=value.slot, chunk=4),
            reads=[source],
            writes=[out],
            x=source,
            out=out,
            width=value.width,
            blocks=blocks,
        )
        return out

    def kernels(self, weight: Any) -> Any:
        """Return the matmul kernels of a weight's block type."""
        return weight.type.matmul()

    def matmul_variants(self, slot: int) -> list[tuple[str, int]]:
        """Return (kernel, state slot that switches it on) for tokens or gathered outputs."""
        if slot == TOKENS:
            return [("decode" if self.decoding else "prefill", ONE)]
        return (
            [("decode", ONE)]
            if self.decoding
            else [("decode", OUTPUTS_DECODE), ("prefill", OUTPUTS_PREFILL)]
        )


def record(architecture: Any, hp: HParams, ops: NumbaOps) -> Plan:
    """Record the architecture's forward pass and return its plan; the output holds the logits."""
    logits = _forward(architecture, hp, ops)
    kernels = [*ENTRIES, *ops.recorder.kernels]
    if not all(kernel.is_ready() for kernel in kernels):
        # What the other plan needs is compiled in the same go: not in the midst of an answer.
        size = ops.inputs.max_tokens if ops.decoding else DECODE_TOKENS
        other = NumbaOps(
            ops.weights, Recorder(size, ops.recorder.state), ops.inputs, ops.cache, ops.adapters
        )
        _forward(architecture, hp, other)
        make_ready([*kernels, *other.recorder.kernels])
    return ops.recorder.finish(logits)


def _forward(architecture: Any, hp: HParams, ops: NumbaOps) -> Buffer:
    logits: Value = architecture.forward(ops, hp)
    if logits.slot != OUTPUTS:
        raise ModelError(f"{hp.arch}: forward() does not gather its outputs")
    return logits.f32()
