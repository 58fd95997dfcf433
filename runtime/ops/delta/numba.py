"""delta as plan rows: 16 value columns of one head and sequence are an item.

Columns of the state do not mix, so an item takes its columns through all tokens of the step while
they stay in the cache: [head][16 columns][head_dim] rows of one vector each.
"""

import math

from ggq.errors import ModelError
from ggq.jit import kernel, njit
from ggq.runtime.cache.layout import PART_BYTES
from ggq.runtime.ops.delta import LENGTH_EPS
from ggq.runtime.ops.recurrent import move_row, record, softplus, spread
from ggq.simd import INT, ROWS, f32x16, float32, fma, int64, load, reduce_add, splat, store, zeros


@njit
def _inverse_length(x, d):
    total = zeros(f32x16)
    for i in range(0, d, 16):
        v = load(x + 4 * i, f32x16)
        total = fma(v, v, total)
    return float32(1.0 / math.sqrt(reduce_add(total) + LENGTH_EPS))


@njit
def _project(state, k, d):
    """Return the sum of the state's rows times k, for 16 columns; d is a multiple of 4."""
    a, b, c, e = zeros(f32x16), zeros(f32x16), zeros(f32x16), zeros(f32x16)
    for i in range(0, 4 * d, 16):
        at = state + 16 * i
        a = fma(load(at, f32x16), spread(k + i), a)
        b = fma(load(at + 64, f32x16), spread(k + i + 4), b)
        c = fma(load(at + 128, f32x16), spread(k + i + 8), c)
        e = fma(load(at + 192, f32x16), spread(k + i + 12), e)
    return (a + b) + (c + e)


@njit
def _advance(state, k, q, d, decay, step):
    """Move the state by one token; return the output of its 16 columns for a raw q."""
    a, b, c, e = zeros(f32x16), zeros(f32x16), zeros(f32x16), zeros(f32x16)
    for i in range(0, 4 * d, 16):
        at = state + 16 * i
        a = move_row(at, k + i, q + i, decay, step, a)
        b = move_row(at + 64, k + i + 4, q + i + 4, decay, step, b)
        c = move_row(at + 128, k + i + 8, q + i + 8, decay, step, c)
        e = move_row(at + 192, k + i + 12, q + i + 12, decay, step, e)
    return (a + b) + (c + e)


@njit
def _sigmoid(x):
    return float32(1.0 / (1.0 + math.exp(-x)))


@njit
def _token(args, row, head, block, state):
    """Take 16 columns of one head through one token."""
    keys, d, dv = args.n_key_heads, args.head_dim, args.head_dim_v
    x = args.x + row * args.x_stride
    q = x + 4 * d * (head // args.neighbours % keys)
    k, v = q + 4 * d * keys, x + 8 * d * keys + 4 * dv * head + 64 * block
    alpha = args.alpha + row * args.alpha_stride + 4 * head
    beta = args.beta + row * args.beta_stride + 4 * head
    a, dt = args.a + 4 * head, args.dt + 4 * head
    rate = load(a, float32) * softplus(load(alpha, float32) + load(dt, float32))
    decay = splat(float32(math.exp(rate)), f32x16)
    of_k, of_q = _inverse_length(k, d), _inverse_length(q, d) / float32(math.sqrt(d))
    known = _project(state, k, d) * decay * splat(of_k, f32x16)
    pace = splat(_sigmoid(load(beta, float32)) * of_k, f32x16)
    y = _advance(state, k, q, d, decay, (load(v, f32x16) - known) * pace)
    out = args.out + row * args.out_stride + 4 * dv * head + 64 * block
    store(out, y * splat(of_q, f32x16))


@kernel(
    x=ROWS,
    alpha=ROWS,
    beta=ROWS,
    out=ROWS,
    n_head=INT,
    n_key_heads=INT,
    neighbours=INT,
    head_dim=INT,
    head_dim_v=INT,
    a=INT,
    dt=INT,
    parts=INT,
    state_offset=INT,
)
def _delta(args, first, last):
    n, d, blocks = args.n_head, args.head_dim, args.head_dim_v // 16
    for item in range(first, last):
        part = args.parts + PART_BYTES * (item // (n * blocks))
        head, block = item // blocks % n, item % blocks
        state = load(part + 16, int64) + args.state_offset
        state += 64 * d * (head * blocks + block)
        start = load(part, int64)
        for t in range(load(part + 8, int64)):
            _token(args, start + t, head, block, state)


def run(backend, x, alpha, beta, layer, spec):
    """Record the recurrence."""
    n, keys, d, dv = spec.n_head, spec.n_key_heads, spec.head_dim, spec.head_dim_v
    if d % 16 or dv % 16 or keys < 1 or n % keys or x.width != 2 * keys * d + n * dv:
        raise ModelError(
            f"{n} heads over {keys} of {d} and {dv} columns are not supported on the CPU"
        )

    return record(
        backend,
        "delta",
        _delta,
        {"x": x, "alpha": alpha, "beta": beta},
        layer,
        n * dv,
        n_head=n,
        n_key_heads=keys,
        neighbours=n // keys if spec.grouped else 1,
        head_dim=d,
        head_dim_v=dv,
        a=backend.weight(spec.a).vector,
        dt=backend.weight(spec.dt).vector,
    )
