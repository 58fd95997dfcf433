"""channel_scan as plan rows: 16 channels of a sequence are an item.

Channels do not mix, so an item takes its own through all tokens of the step while their states stay
in the cache: [16 channels][d_state] rows of one vector each.
"""

from ggq.errors import ModelError
from ggq.jit import kernel, njit
from ggq.runtime.cache.layout import PART_BYTES
from ggq.runtime.ops.recurrent import record, spread
from ggq.simd import INT, ROWS, f32x16, fma, int64, load, store, zeros
from ggq.simd.math import exp, softplus


@njit
def _token(args, row, column, state):
    """Take 16 channels through one token; ``column``: the bytes before the first."""
    size, pitch = args.d_state, args.pitch
    b, c = args.b + row * args.b_stride, args.c + row * args.c_stride
    x = load(args.x + row * args.x_stride + column, f32x16)
    step = softplus(load(args.dt + row * args.dt_stride + column, f32x16))
    new, total = step * x, zeros(f32x16)
    for j in range(size):
        decay = exp(step * load(args.a + j * pitch + column, f32x16))
        held = fma(spread(b + 4 * j), new, load(state + 64 * j, f32x16) * decay)
        store(state + 64 * j, held)
        total = fma(held, spread(c + 4 * j), total)
    direct = load(args.d + column, f32x16)
    store(args.out + row * args.out_stride + column, fma(direct, x, total))


@kernel(
    x=ROWS,
    dt=ROWS,
    b=ROWS,
    c=ROWS,
    out=ROWS,
    blocks=INT,
    d_state=INT,
    a=INT,
    pitch=INT,
    d=INT,
    parts=INT,
    state_offset=INT,
)
def _channel_scan(args, first, last):
    blocks = args.blocks
    for item in range(first, last):
        part, block = args.parts + PART_BYTES * (item // blocks), item % blocks
        state = load(part + 16, int64) + args.state_offset + 64 * args.d_state * block
        start = load(part, int64)
        for t in range(load(part + 8, int64)):
            _token(args, start + t, 64 * block, state)


def run(backend, x, dt, b, c, layer, spec):
    """Record the recurrence."""
    n, size = spec.n_channels, spec.d_state
    if n % 16 or (x.width, dt.width, b.width, c.width) != (n, n, size, size):
        raise ModelError(f"{n} channels with {size} states each are not supported on the CPU")

    return record(
        backend,
        "channel_scan",
        _channel_scan,
        {"x": x, "dt": dt, "b": b, "c": c},
        layer,
        n,
        blocks=n // 16,
        d_state=size,
        a=backend.weight(spec.a).transposed,
        pitch=4 * n,
        d=backend.weight(spec.d).vector,
    )
