"""linear as plan rows: the block type's own kernel over groups of weight rows."""

from ggq.errors import ModelError
from ggq.quants.kernels.abi import GROUP
from ggq.runtime.backends.numba.plan import Work

_CHUNK_BYTES = 48 * 1024  # small enough to share out, large enough to hide the claim


def run(backend, x, name, bias=None, rows=None):
    """Record y = x @ W.T (+ b); a residual that is added next is fused into the last step."""
    weight = backend.weight(name)
    n_rows, n_cols = weight.shape
    first, end = rows or (0, n_rows)
    assert 0 <= first < end <= n_rows, (name, rows)
    address, n_rows = weight.address + first * weight.row_bytes, end - first
    if n_cols != x.width:
        raise ModelError(f"tensor {name} has {n_cols} columns, its input {x.width}")

    def make(value, form, residual):
        kernels = backend.kernels(weight)
        source, out = x.form(kernels.activations), backend.new(value)
        reads = [source] if residual is None else [source, residual]
        groups = -(-n_rows // GROUP)
        for variant, slot in backend.matmul_variants(x.slot):
            tiled = variant == "prefill"
            chunk = _tiles(groups) if tiled else _chunk(weight.row_bytes, groups)
            backend.recorder.row(
                f"linear {weight.type.name}",
                getattr(kernels, variant),
                Work(items=groups, slot=slot, chunk=chunk),
                reads=reads,
                writes=[out],
                weights=address,
                row_bytes=weight.row_bytes,
                n_rows=n_rows,
                n_cols=n_cols,
                input=source,
                output=out,
                bias=backend.weight(bias).vector + 4 * first if bias else None,
                residual=residual,
                state=backend.recorder.state.address(x.slot),
            )
        return out

    return backend.value(n_rows, x.slot, make, adds_residual=True)


def _chunk(row_bytes, groups):
    """Return the groups of a chunk: about 48 KiB of weights, at least 8 chunks in all."""
    return max(1, min(_CHUNK_BYTES // (row_bytes * GROUP), groups // 8))


def _tiles(groups):
    """Return the groups of a chunk for many tokens: pairs, up to the kernel's pass of four."""
    return max(2, min(8, groups // 16 // 2 * 2))
