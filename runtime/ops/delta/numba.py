"""delta as plan rows: 16 value columns of one head and sequence are an item.

Columns of the state do not mix, so an item takes its columns through all tokens of the step while
they stay in the cache: [head][16 columns][head_dim] rows of one vector each.
"""

import math

from numba import float32, int64

from ggq.errors import ModelError
from ggq.jit import kernel, njit
from ggq.runtime.backends.numba.plan import PARTS, Work
from ggq.runtime.backends.numba.values import compiled
from ggq.runtime.cache.layout import PART_BYTES
from ggq.runtime.ops.delta import LENGTH_EPS
from ggq.simd import f32x16, fma, load, reduce_add, splat, store, zeros


@njit
def _spread(address):
    return splat(load(address, float32), f32x16)


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
        a = fma(load(at, f32x16), _spread(k + i), a)
        b = fma(load(at + 64, f32x16), _spread(k + i + 4), b)
        c = fma(load(at + 128, f32x16), _spread(k + i + 8), c)
        e = fma(load(at + 192, f32x16), _spread(k + i + 12), e)
    return (a + b) + (c + e)


@njit
def _row(at, k, q, decay, step, total):
    """Decay one row of the state, add k times the step; return total + row * q."""
    row = fma(_spread(k), step, load(at, f32x16) * decay)
    store(at, row)
    return fma(row, _spread(q), total)


@njit
def _advance(state, k, q, d, decay, step):
    """Move the state by one token; return the output of its 16 columns for a raw q."""
    a, b, c, e = zeros(f32x16), zeros(f32x16), zeros(f32x16), zeros(f32x16)
    for i in range(0, 4 * d, 16):
        at = state + 16 * i
        a = _row(at, k + i, q + i, decay, step, a)
        b = _row(at + 64, k + i + 4, q + i + 4, decay, step, b)
        c = _row(at + 128, k + i + 8, q + i + 8, decay, step, c)
        e = _row(at + 192, k + i + 12, q + i + 12, decay, step, e)
    return (a + b) + (c + e)


@njit
def _softplus(x):
    return max(x, float32(0)) + float32(math.log1p(math.exp(-abs(x))))


@njit
def _sigmoid(x):
    return float32(1.0 / (1.0 + math.exp(-x)))


@njit
def _token(args, row, head, block, state):
    """Take 16 columns of one head through one token."""
    keys, d, dv = load(args + 72, int64), load(args + 80, int64), load(args + 88, int64)
    x = load(args, int64) + row * load(args + 8, int64)
    q = x + 4 * d * (head % keys)
    k, v = q + 4 * d * keys, x + 8 * d * keys + 4 * dv * head + 64 * block
    alpha = load(args + 16, int64) + row * load(args + 24, int64) + 4 * head
    beta = load(args + 32, int64) + row * load(args + 40, int64) + 4 * head
    a, dt = load(args + 96, int64) + 4 * head, load(args + 104, int64) + 4 * head
    rate = load(a, float32) * _softplus(load(alpha, float32) + load(dt, float32))
    decay = splat(float32(math.exp(rate)), f32x16)
    of_k, of_q = _inverse_length(k, d), _inverse_length(q, d) / float32(math.sqrt(d))
    known = _project(state, k, d) * decay * splat(of_k, f32x16)
    pace = splat(_sigmoid(load(beta, float32)) * of_k, f32x16)
    y = _advance(state, k, q, d, decay, (load(v, f32x16) - known) * pace)
    out = load(args + 48, int64) + row * load(args + 56, int64) + 4 * dv * head + 64 * block
    store(out, y * splat(of_q, f32x16))


def _builder():
    def delta_kernel(args, first, last):
        n, d, dv = load(args + 64, int64), load(args + 80, int64), load(args + 88, int64)
        blocks = dv // 16
        for item in range(first, last):
            part = load(args + 112, int64) + PART_BYTES * (item // (n * blocks))
            head, block = item // blocks % n, item % blocks
            state = load(part + 16, int64) + load(args + 120, int64)
            state += 64 * d * (head * blocks + block)
            start = load(part, int64)
            for t in range(load(part + 8, int64)):
                _token(args, start + t, head, block, state)

    return kernel(delta_kernel)


def run(backend, x, alpha, beta, layer, spec):
    """Record the recurrence."""
    n, keys, d, dv = spec.n_head, spec.n_key_heads, spec.head_dim, spec.head_dim_v
    if d % 16 or dv % 16 or keys < 1 or n % keys or x.width != 2 * keys * d + n * dv:
        raise ModelError(
            f"{n} heads over {keys} of {d} and {dv} columns are not supported on the CPU"
        )

    def make(value, form, residual):
        source, a, b, out = x.f32(), alpha.f32(), beta.f32(), backend.new(value)
        args = [source, source.stride, a, a.stride, b, b.stride, out, out.stride, n, keys, d, dv]
        args += [backend.weight(spec.a).vector, backend.weight(spec.dt).vector]
        args += [backend.inputs.parts, backend.cache.state_offsets[layer][1]]
        state = backend.cache.state_names[layer][1]
        backend.recorder.row(
            "delta",
            compiled(_builder),
            args,
            Work(items=n * (dv // 16), slot=PARTS, chunk=2),
            reads=[source, a, b],
            writes=[out, state],
        )
        return out

    return backend.value(n * dv, x.slot, make)
