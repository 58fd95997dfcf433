"""Recording for operations that treat every column alike: a token is an item, floats in and out."""

from ggq.runtime.backends.numba.plan import Work
from ggq.runtime.backends.numba.values import compiled, float_bits

__all__ = ["record"]


def record(backend, label, builder, inputs, constant=0.0):
    """Return a lazy value of the first input's width; kernel arguments as `ARGUMENTS` lists."""
    head = inputs[0]

    def make(value, form, residual):
        sources, out = [x.f32() for x in inputs], backend.new(value)
        args = [sources[0], sources[-1], sources[0].stride, out, out.stride]
        args += [head.width, float_bits(constant)]
        backend.recorder.row(
            label, compiled(builder), args, Work(slot=head.slot), reads=sources, writes=[out]
        )
        return out

    return backend.value(head.width, head.slot, make)
