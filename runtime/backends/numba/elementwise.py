"""Recording for operations that treat every column alike: a token is an item, floats in and out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ggq.runtime.backends.numba.plan import Buffer, Work
from ggq.runtime.backends.numba.values import Value
from ggq.simd import FLOAT, INT, ROWS, Struct

if TYPE_CHECKING:
    from ggq.runtime.backends.numba.backend import NumbaOps

__all__ = ["ARGUMENTS", "BY_ROW", "record", "record_by_row", "record_one"]

ARGUMENTS = Struct("elementwise", a=ROWS, b=ROWS, out=ROWS, width=INT, constant=FLOAT)
BY_ROW = Struct("by_row", x=ROWS, row=INT, out=ROWS, width=INT)


def record(
    backend: NumbaOps,
    label: str,
    kernel: Any,
    inputs: Sequence[Value],
    constant: float = 0.0,
) -> Value:
    """Return a lazy value of the first input's width; where there is one input it is a and b."""
    head = inputs[0]

    def make(value: Value, form: str, residual: Buffer | None) -> Buffer:
        sources, out = [x.f32() for x in inputs], backend.new(value)
        backend.recorder.row(
            label,
            kernel,
            Work(slot=head.slot),
            reads=sources,
            writes=[out],
            a=sources[0],
            b=sources[-1],
            out=out,
            width=head.width,
            constant=constant,
        )
        return out

    return backend.value(head.width, head.slot, make)


def record_one(
    backend: NumbaOps,
    label: str,
    kernel: Any,
    x: Value,
    columns: int | None = None,
    **arguments: Any,
) -> Value:
    """Return a lazy value of ``columns``, or as many as ``x`` has, made of each token of it.

    The kernel has ``x`` and ``out`` and the further ``arguments``.
    """

    def make(value: Value, form: str, residual: Buffer | None) -> Buffer:
        source, out = x.f32(), backend.new(value)
        work = Work(slot=x.slot)
        places = {"x": source, "out": out, **arguments}
        backend.recorder.row(label, kernel, work, reads=[source], writes=[out], **places)
        return out

    return backend.value(x.width if columns is None else columns, x.slot, make)


def record_by_row(backend: NumbaOps, label: str, kernel: Any, x: Value, name: str) -> Value:
    """Return a lazy value of each token of ``x`` with the first row of the tensor ``name``."""
    weight: Any = backend.weight(name)
    return record_one(backend, label, kernel, x, row=weight.vector, width=x.width)
