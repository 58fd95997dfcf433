"""scan as plan rows: 16 columns of one head and sequence are an item.

Columns of the state do not mix, so an item takes its columns through all tokens of the step while
they stay in the cache: [head][16 columns][d_state] rows of one vector each.
"""

import math

from ggq.errors import ModelError
from ggq.jit import kernel, njit
from ggq.runtime.cache.layout import PART_BYTES
from ggq.runtime.ops.recurrent import move_row, record, softplus, spread
from ggq.simd import INT, ROWS, f32x16, float32, fma, int64, load, splat, store, zeros


@njit
def _advance(state, b, c, size, decay, new):
    """Move the state by one token; return its 16 columns times c. ``size``: a multiple of 4."""
    w, x, y, z = zeros(f32x16), zeros(f32x16), zeros(f32x16), zeros(f32x16)
    for i in range(0, 4 * size, 16):
        at = state + 16 * i
        w = move_row(at, b + i, c + i, decay, new, w)
        x = move_row(at + 64, b + i + 4, c + i + 4, decay, new, x)
        y = move_row(at + 128, b + i + 8, c + i + 8, decay, new, y)
        z = move_row(at + 192, b + i + 12, c + i + 12, decay, new, z)
    return (w + x) + (y + z)


@njit
def _token(args, row, head, block, state):
    """Take 16 columns of one head through one token."""
    n, d, groups, size = args.n_head, args.head_dim, args.n_group, args.d_state
    inputs = args.x + row * args.x_stride
    x = load(inputs + 4 * d * head + 64 * block, f32x16)
    b = inputs + 4 * (n * d + size * (head // (n // groups)))
    dt = load(args.dt + row * args.dt_stride + 4 * head, float32)
    step = softplus(dt + load(args.bias + 4 * head, float32))
    decay = splat(float32(math.exp(step * load(args.a + 4 * head, float32))), f32x16)
    y = _advance(state, b, b + 4 * groups * size, size, decay, x * splat(step, f32x16))
    out = args.out + row * args.out_stride + 4 * d * head + 64 * block
    store(out, fma(spread(args.d + 4 * head), x, y))


@kernel(
    x=ROWS,
    dt=ROWS,
    out=ROWS,
    n_head=INT,
    head_dim=INT,
    n_group=INT,
    d_state=INT,
    a=INT,
    d=INT,
    bias=INT,
    parts=INT,
    state_offset=INT,
)
def _scan(args, first, last):
    n, blocks = args.n_head, args.head_dim // 16
    for item in range(first, last):
        part = args.parts + PART_BYTES * (item // (n * blocks))
        head, block = item // blocks % n, item % blocks
        state = load(part + 16, int64) + args.state_offset
        state += 64 * args.d_state * (head * blocks + block)
        start = load(part, int64)
        for t in range(load(part + 8, int64)):
            _token(args, start + t, head, block, state)


def run(backend, x, dt, layer, spec):
    """Record the recurrence."""
    n, d, groups, size = spec.n_head, spec.head_dim, spec.n_group, spec.d_state
    if d % 16 or size % 4 or n % groups or x.width != n * d + 2 * groups * size:
        raise ModelError(
            f"{n} heads of {d} columns over {groups} states of {size} are not supported on the CPU"
        )

    return record(
        backend,
        "scan",
        _scan,
        {"x": x, "dt": dt},
        layer,
        n * d,
        n_head=n,
        head_dim=d,
        n_group=groups,
        d_state=size,
        a=backend.weight(spec.a).vector,
        d=backend.weight(spec.d).vector,
        bias=backend.weight(spec.bias).vector,
    )
