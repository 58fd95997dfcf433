"""heads as plan rows: every token goes to every head, as if heads were experts that all chose.

Columns are laid out a row per token and head, multiplied by the kernels of experts, and put side by
side again.
"""

from numba import int64

from ggq.errors import ModelError
from ggq.jit import kernel
from ggq.runtime.backends.numba.plan import Work
from ggq.runtime.backends.numba.values import compiled
from ggq.runtime.ops.experts.numba import run as experts
from ggq.runtime.ops.route.numba import Routed, record_sort
from ggq.simd import f32x16, load, store


def _ids():
    def head_ids(args, first, last):
        ids, stride, n_head = load(args, int64), load(args + 8, int64), load(args + 16, int64)
        for item in range(first, last):
            for head in range(n_head):
                store(ids + item * stride + 8 * head, int64(head))

    return kernel(head_ids)


def _move():
    def move_heads(args, first, last):
        """Copy between a row per token and one per (token, head), towards the latter if split."""
        whole, whole_stride = load(args, int64), load(args + 8, int64)
        rows, row_stride = load(args + 16, int64), load(args + 24, int64)
        n_head, width = load(args + 32, int64), load(args + 40, int64)
        place, split = load(args + 48, int64), load(args + 56, int64)
        for item in range(first, last):
            for head in range(n_head):
                pair = item * n_head + head
                row = rows + (load(place + 8 * pair, int64) if place else pair) * row_stride
                part = whole + item * whole_stride + 4 * head * width
                source, to = (part, row) if split else (row, part)
                for i in range(0, 4 * width, 64):
                    store(to + i, load(source + i, f32x16))

    return kernel(move_heads)


def run(backend, x, name):
    """Record the heads' products."""
    n_head, n_out, n_in = backend.weight(name).shape
    if x.width != n_head * n_in:
        raise ModelError(f"tensor {name} has {n_head} x {n_in} columns, its input {x.width}")
    if n_in % 16 or n_out % 16:
        raise ModelError(f"heads of {n_in} and {n_out} columns are not supported on the CPU")
    routed = _every_head(backend, n_head)

    def split(value, form, residual):
        return _record_move(backend, x.f32(), backend.new(value), routed, n_in, split=True)

    def join(value, form, residual):
        return _record_move(backend, backend.new(value), products.f32(), routed, n_out, split=False)

    products = experts(backend, backend.value(n_in, routed.pairs, split), routed, name)
    return backend.value(n_head * n_out, x.slot, join)


def _record_move(backend, whole, rows, routed, width, split):
    """Record the copy and return the buffer it fills."""
    source, out = (whole, rows) if split else (rows, whole)
    args = [whole, whole.stride, rows, rows.stride, routed.n_expert, width]
    args += [routed.place or 0, int(split)]
    reads = [source, routed.ids] if routed.place is None else [source, routed.place]
    backend.recorder.row("heads", compiled(_move), args, reads=reads, writes=[out])
    return out


def _every_head(backend, n_head):
    """Return the routing of every token to every head, recorded once in a plan."""
    known = backend.__dict__.setdefault("routes_to_heads", {})
    if n_head not in known:
        recorder = backend.recorder
        ids = recorder.buffer(8 * n_head)
        routed = Routed(n_head, n_head, recorder.state.multiple(n_head), ids, None)
        args = [ids, ids.stride, n_head]
        recorder.row("head ids", compiled(_ids), args, Work(), writes=[ids])
        if not backend.few:
            record_sort(backend, routed)
        known[n_head] = routed
    return known[n_head]
