"""heads as plan rows: every token goes to every head, as if heads were experts that all chose.

Columns are laid out a row per token and head, multiplied by the kernels of experts, and put side by
side again.
"""

from ggq.errors import ModelError
from ggq.jit import kernel
from ggq.runtime.ops.experts.numba import run as experts
from ggq.runtime.ops.route.numba import Routed, record_sort
from ggq.simd import INT, ROWS, f32x16, int64, load, store


@kernel(ids=ROWS, n_head=INT)
def _head_ids(args, first, last):
    for item in range(first, last):
        for head in range(args.n_head):
            store(args.ids + item * args.ids_stride + 8 * head, int64(head))


@kernel(whole=ROWS, rows=ROWS, n_head=INT, width=INT, place=INT, split=INT)
def _move_heads(args, first, last):
    """Copy between a row per token and one per (token, head), towards the latter if split."""
    n_head, width, place, split = args.n_head, args.width, args.place, args.split
    for item in range(first, last):
        for head in range(n_head):
            pair = item * n_head + head
            row = args.rows + (load(place + 8 * pair, int64) if place else pair) * args.rows_stride
            part = args.whole + item * args.whole_stride + 4 * head * width
            source, to = (part, row) if split else (row, part)
            for i in range(0, 4 * width, 64):
                store(to + i, load(source + i, f32x16))


def run(backend, x, name):
    """Record the heads' products."""
    n_head, n_out, n_in = backend.weight(name).shape
    if x.width != n_head * n_in:
        raise ModelError(f"tensor {name} has {n_head} x {n_in} columns, its input {x.width}")
    if n_in % 16 or n_out % 16:
        raise ModelError(f"heads of {n_in} and {n_out} columns are not supported on the CPU")
    routed = backend.once((_every_head, n_head), lambda: _every_head(backend, n_head))

    def split(value, form, residual):
        return _record_move(backend, x.f32(), backend.new(value), routed, n_in, split=True)

    def join(value, form, residual):
        return _record_move(backend, backend.new(value), products.f32(), routed, n_out, split=False)

    products = experts(backend, backend.value(n_in, routed.pairs, split), routed, name)
    return backend.value(n_head * n_out, x.slot, join)


def _record_move(backend, whole, rows, routed, width, split):
    """Record the copy and return the buffer it fills."""
    source, out = (whole, rows) if split else (rows, whole)
    reads = [source, routed.ids] if routed.place is None else [source, routed.place]
    backend.recorder.row(
        "heads",
        _move_heads,
        reads=reads,
        writes=[out],
        whole=whole,
        rows=rows,
        n_head=routed.n_expert,
        width=width,
        place=routed.place,
        split=split,
    )
    return out


def _every_head(backend, n_head):
    """Return the routing of every token to every head."""
    recorder = backend.recorder
    ids = recorder.buffer(8 * n_head)
    routed = Routed(n_head, n_head, recorder.state.multiple(n_head), ids, None)
    recorder.row("head ids", _head_ids, writes=[ids], ids=ids, n_head=n_head)
    if not backend.decoding:
        record_sort(backend, routed)
    return routed
