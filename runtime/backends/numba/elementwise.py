"""Recording for operations that treat every column alike: a token is an item, floats in and out."""

from ggq.runtime.backends.numba.plan import Work
from ggq.simd import FLOAT, INT, ROWS, Struct

__all__ = ["ARGUMENTS", "record"]

ARGUMENTS = Struct("elementwise", a=ROWS, b=ROWS, out=ROWS, width=INT, constant=FLOAT)


def record(backend, label, kernel, inputs, constant=0.0):
    """Return a lazy value of the first input's width; where there is one input it is a and b."""
    head = inputs[0]

    def make(value, form, residual):
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
