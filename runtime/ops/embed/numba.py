"""embed as plan rows: a token's row is decoded by its block type's kernel."""

from ggq.runtime.backends.numba.plan import TOKENS
from ggq.runtime.ops.embed import EMBEDDING


def run(backend, name, of="ids"):
    """Record the decoding of one row of the table ``name`` per token, at what ``of`` names."""
    rows = getattr(backend.inputs, of)
    weight = backend.weight(name)
    n_rows, width = weight.shape

    def make(value, form, residual):
        out = backend.new(value)
        backend.recorder.row(
            "embed",
            backend.kernels(weight).dequantize,
            writes=[out],
            weights=weight.address,
            row_bytes=weight.row_bytes,
            n_rows=n_rows,
            n_cols=width,
            input=(rows, 8),  # an int64 per token
            output=out,
            bias=None,
            residual=None,
            state=backend.recorder.state.address(),
        )
        return out

    rows_of_all = backend.value(width, TOKENS, make)
    return backend.see(rows_of_all, 0) if name == EMBEDDING else rows_of_all
