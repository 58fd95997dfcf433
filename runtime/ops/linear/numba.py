"""linear as plan rows: the block type's own kernel over groups of weight rows."""

from ggq.errors import ModelError
from ggq.quants.kernels.abi import GROUP, padded
from ggq.runtime.backends.numba.plan import Work
from ggq.runtime.kernels.added_rank import add_rank

_CHUNK_BYTES = 192 * 1024  # small enough to share out, large enough to hide a call's preparing


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
        for number, adapter in enumerate(backend.adapters):
            if name in adapter.pairs:
                _adapt(backend, number, adapter.pairs[name], x, out, first, end)
        return out

    return backend.value(n_rows, x.slot, make, adds_residual=True)


def _adapt(backend, number, pair, x, out, first, end):
    """Record what an adapter adds to the product's rows first to end, where a step needs it."""
    state, width = backend.recorder.state, -(-pair.rank // GROUP)
    switch, source = state.switch(number), x.f32()
    small = backend.recorder.buffer(4 * padded(pair.rank), x.slot)
    backend.recorder.row(
        "linear adapter A",
        backend.kernels(pair.a).decode,
        Work(items=width, slot=switch),
        reads=[source],
        writes=[small],
        weights=pair.a.address,
        row_bytes=pair.a.row_bytes,
        n_rows=pair.rank,
        n_cols=x.width,
        input=source,
        output=small,
        bias=None,
        residual=None,
        state=state.address(x.slot),
    )
    groups = pair.groups(first, end)
    backend.recorder.row(
        "linear adapter B",
        add_rank,
        Work(items=len(groups), slot=switch, chunk=_chunk(4 * pair.rank, len(groups))),
        reads=[small, out],
        writes=[out],
        b=groups.ctypes.data,
        rank=pair.rank,
        t=small,
        scales=backend.inputs.scales(number, x.slot),
        out=out,
        state=state.address(x.slot),
    )


def _chunk(row_bytes, groups):
    """Return the groups of a chunk: about 192 KiB of weights, at least 8 chunks in all."""
    return max(1, min(_CHUNK_BYTES // (row_bytes * GROUP), groups // 8))


def _tiles(groups):
    """Return the groups of a chunk for many tokens: pairs, up to the kernel's pass of four."""
    return max(2, min(8, groups // 16 // 2 * 2))
