"""Recording for operations that treat every column alike: a token is an item, floats in and out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ggq.machine_code import Function
from ggq.runtime.backends.numba.plan import Buffer, Work
from ggq.runtime.backends.numba.values import Value, compiled, float_bits

if TYPE_CHECKING:
    from ggq.runtime.backends.numba.backend import NumbaOps

__all__ = ["record"]


def record(
    backend: NumbaOps,
    label: str,
    builder: Callable[[], Any],
    inputs: Sequence[Value],
    constant: float = 0.0,
) -> Value:
    """Return a lazy value of the first input's width; kernel arguments as `ARGUMENTS` lists."""
    head = inputs[0]

    def make(value: Value, form: str, residual: Buffer | None) -> Buffer:
        sources, out = [x.f32() for x in inputs], backend.new(value)
        args: list[int | Buffer | Function] = [sources[0], sources[-1]]
        args += [sources[0].stride, out, out.stride]
        args += [head.width, float_bits(constant)]
        backend.recorder.row(
            label, compiled(builder), args, Work(slot=head.slot), reads=sources, writes=[out]
        )
        return out

    return backend.value(head.width, head.slot, make)
