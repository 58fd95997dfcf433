"""attention as plan rows: new keys and values go to the cache, (segment, head) pairs attend."""

from functools import cache

from ggq.errors import ModelError
from ggq.jit import kernel
from ggq.runtime.backends.numba.plan import SEGMENTS, SPLITS, SPLITS_OF_ALL, Work
from ggq.runtime.backends.numba.values import float_bits
from ggq.runtime.kernels.attend import MAX_HEAD, MAX_KEY, attend, chunks_of
from ggq.runtime.kernels.attend_new import attend_new
from ggq.runtime.kernels.cache_store import store_new
from ggq.runtime.kernels.cached import KEYS, TYPES, VALUES


@cache
def _store(k, v):
    """Return the kernel that stores keys of type number ``k`` and values of ``v``."""

    def store_kernel(args, first, last):
        store_new(args, first, last, KEYS[k], VALUES[v])

    return kernel(store_kernel)


@cache
def _attend(k, v):
    """Return the kernel that attends over them."""

    def attend_kernel(args, first, last):
        attend(args, first, last, KEYS[k], VALUES[v])

    return kernel(attend_kernel)


@cache
def _attend_new(k, v):
    """Return the kernel that does both, and the rotation before and the quantization after."""

    def attend_new_kernel(args, first, last):
        attend_new(args, first, last, KEYS[k], VALUES[v])

    return kernel(attend_new_kernel)


def run(backend, q, k, v, layer, spec):
    """Record the update of the layer's cache and the attention over it."""
    widths = spec.head_dim, spec.head_dim_v
    if any(n % 16 for n in widths) or widths[0] > MAX_KEY or widths[1] > MAX_HEAD:
        raise ModelError(
            f"attention heads of {widths[0]} and {widths[1]} columns are not supported on the CPU: "
            f"multiples of 16 up to {MAX_KEY} and {MAX_HEAD} are"
        )
    layout = _Layout(backend, layer, spec)
    pairs = spec.n_head // spec.n_head_kv * spec.head_dim_v % 32 == 0

    def make(value, form, residual):
        if fused:
            return _record_fused(layout, value, form, (q, k, v))
        if k is not None:
            _record_store(layout, k.f32(), v.f32())
        return _record_attend(layout, value, q.f32())

    fused = spec.causal and backend.few and (k is None or _same_rotation(q, k))
    make.quantizes = pairs and fused
    return backend.value(spec.n_head * spec.head_dim_v, q.slot, make)


class _Layout:
    """Where a layer's attention finds its cache and what its kernels' arguments are."""

    def __init__(self, backend, layer, spec):
        self.backend, self.spec = backend, spec
        self.keys, self.values = backend.cache.keys[layer], backend.cache.values[layer]
        self.kinds = [TYPES.index(kind) for kind in backend.cache.kinds]
        inputs = backend.inputs
        segments = inputs.recent_segments if backend.cache.windowed[layer] else inputs.segments
        self.addresses = [self.keys.ctypes.data, self.values.ctypes.data, segments]

    def attend_args(self, query, out):
        """Return the arguments of runtime/kernels/attend.py."""
        spec = self.spec
        sinks = self.backend.weight(spec.sinks).vector if spec.sinks else 0
        args = [query, query.stride, out, out.stride, spec.n_head_kv]
        args += [spec.n_head // spec.n_head_kv, spec.head_dim, spec.head_dim_v]
        args += [float_bits(spec.scale), float_bits(spec.softcap or 0.0), spec.window or 0, sinks]
        return args + self.addresses


def _same_rotation(q, k):
    """Tell whether queries and keys wait for a rotation of the same kind, or both for none."""
    a, b = q.rotation, k.rotation
    if a is None or b is None:
        return a is b
    return (a.half, a.neox) == (b.half, b.neox)


def _record_fused(layout, value, form, inputs):
    """Record one row that rotates, stores and attends, and quantizes if asked."""
    backend, spec, recorder = layout.backend, layout.spec, layout.backend.recorder
    turn = inputs[0].rotation
    sources = [x if x is None or x.rotation is None else x.rotation.source for x in inputs]
    query, key, new = (x and x.f32() for x in sources)
    out = backend.new(value)
    quantized = backend.new(value, "q8") if form == "q8" else None
    n_chunks = chunks_of(backend.cache.n_pages)
    parts = recorder.buffer(spec.n_head * n_chunks * (64 + 4 * spec.head_dim_v))
    args = layout.attend_args(query, out)
    args += [key, key.stride, new, new.stride] if key else [0, 0, 0, 0]
    args += [turn.table, inputs[1].rotation.table if key else 0] if turn else [0, 0]
    args += [turn.half, turn.neox] if turn else [0, 0]
    args += [quantized, quantized.stride] if quantized else [0, 0]
    args += [recorder.state.address(SPLITS), parts, parts.stride]
    args += [backend.inputs.ended(spec.n_head_kv), n_chunks]
    stored = layout.keys
    recorder.row(
        "attention",
        _attend_new(*layout.kinds),
        args,
        Work(items=spec.n_head_kv, slot=SPLITS_OF_ALL),
        reads=[query, key, new] if key else [query, stored],
        writes=[b for b in (out, quantized, parts, key and stored) if b is not None],
    )
    return quantized or out


def _record_store(layout, key, new):
    """Record storing apart from attending: a segment's tokens see each other's keys."""
    backend, spec = layout.backend, layout.spec
    args = [key, key.stride, new, new.stride, spec.n_head_kv, spec.head_dim, spec.head_dim_v]
    args += layout.addresses
    put = _store(*layout.kinds)
    backend.recorder.row(
        "store kv", put, args, Work(slot=SEGMENTS), reads=[key, new], writes=[layout.keys]
    )


def _record_attend(layout, value, query):
    backend, spec = layout.backend, layout.spec
    out = backend.new(value)
    backend.recorder.row(
        "attention",
        _attend(*layout.kinds),
        layout.attend_args(query, out),
        Work(items=spec.n_head_kv, slot=SEGMENTS),
        reads=[query, layout.keys],
        writes=[out],
    )
    return out
