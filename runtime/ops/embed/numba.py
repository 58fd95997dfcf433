"""embed as plan rows: a token's row is decoded by its block type's kernel."""

from ggq.runtime.backends.numba.plan import TOKENS
from ggq.runtime.backends.numba.values import compiled


def run(backend, name, of="ids"):
    """Record the decoding of one row of the table ``name`` per token, at its id or position."""
    rows = backend.inputs.ids if of == "ids" else backend.inputs.positions
    weight = backend.weight(name)
    n_rows, width = weight.shape

    def make(value, form, residual):
        out = backend.new(value)
        state = backend.recorder.state.address()
        args = [weight.address, weight.row_bytes, n_rows, width, rows, 8]
        args += [out, out.stride, 0, 0, state]
        kernel = compiled(backend.kernels(weight).rows)
        backend.recorder.row("embed", kernel, args, writes=[out])
        return out

    return backend.value(width, TOKENS, make)
