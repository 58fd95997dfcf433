"""attention as plan rows: new keys and values go to the cache, (segment, head) pairs attend."""

from ggq.errors import ModelError
from ggq.jit import kernel
from ggq.runtime.backends.numba import compiled, float_bits
from ggq.runtime.kernels.attend import MAX_HEAD, MAX_KEY, attend
from ggq.runtime.kernels.attend_new import attend_new
from ggq.runtime.kernels.cache_store import store_new
from ggq.runtime.kernels.cached import (
    F16,
    F32,
    Q8_0,
    mix4_f16,
    mix4_f32,
    mix4_q8_0,
    put_key_f16,
    put_key_f32,
    put_key_q8_0,
    put_value_f16,
    put_value_f32,
    put_value_q8_0,
    scores4_f16,
    scores4_f32,
    scores4_q8_0,
)
from ggq.runtime.plan import SEGMENTS, Work


def _store_f16():
    def store_f16(args, first, last):
        store_new(args, first, last, F16, put_key_f16, put_value_f16)

    return kernel(store_f16)


def _attend_f16():
    def attend_f16(args, first, last):
        attend(args, first, last, F16, scores4_f16, mix4_f16)

    return kernel(attend_f16)


def _new_f16():
    def attend_new_f16(args, first, last):
        attend_new(args, first, last, F16, scores4_f16, mix4_f16, put_key_f16, put_value_f16)

    return kernel(attend_new_f16)


def _store_f32():
    def store_f32(args, first, last):
        store_new(args, first, last, F32, put_key_f32, put_value_f32)

    return kernel(store_f32)


def _attend_f32():
    def attend_f32(args, first, last):
        attend(args, first, last, F32, scores4_f32, mix4_f32)

    return kernel(attend_f32)


def _new_f32():
    def attend_new_f32(args, first, last):
        attend_new(args, first, last, F32, scores4_f32, mix4_f32, put_key_f32, put_value_f32)

    return kernel(attend_new_f32)


def _store_q8_0():
    def store_q8_0(args, first, last):
        store_new(args, first, last, Q8_0, put_key_q8_0, put_value_q8_0)

    return kernel(store_q8_0)


def _attend_q8_0():
    def attend_q8_0(args, first, last):
        attend(args, first, last, Q8_0, scores4_q8_0, mix4_q8_0)

    return kernel(attend_q8_0)


def _new_q8_0():
    def attend_new_q8_0(args, first, last):
        attend_new(args, first, last, Q8_0, scores4_q8_0, mix4_q8_0, put_key_q8_0, put_value_q8_0)

    return kernel(attend_new_q8_0)


# cache type -> (store, attend, both and the rotation in one)
_KERNELS = {
    "f16": (_store_f16, _attend_f16, _new_f16),
    "f32": (_store_f32, _attend_f32, _new_f32),
    "q8_0": (_store_q8_0, _attend_q8_0, _new_q8_0),
}


def run(backend, q, k, v, layer, spec):
    """Record the update of the layer's cache and the attention over it."""
    columns = spec.head_dim, spec.head_dim_v
    if any(n % 16 for n in columns) or columns[0] > MAX_KEY or columns[1] > MAX_HEAD:
        raise ModelError(
            f"attention heads of {spec.head_dim} and {spec.head_dim_v} columns are not supported "
            f"on the CPU: multiples of 16 up to {MAX_KEY} and {MAX_HEAD} are"
        )
    layout = _Layout(backend, layer, spec)
    pairs = spec.n_head // spec.n_head_kv * spec.head_dim_v % 32 == 0

    def make(value, form, residual):
        if fused:
            return _record_fused(layout, value, form, (q, k, v))
        if k is not None:
            _record_store(layout, k.f32(), v.f32())
        return _record_attend(layout, value, q.f32())

    fused = backend.few and k is not None and _same_rotation(q, k) and columns[0] <= MAX_HEAD
    make.quantizes = pairs and fused
    return backend.value(spec.n_head * spec.head_dim_v, q.slot, make)


class _Layout:
    """Where a layer's attention finds its cache and what its kernels' arguments are."""

    def __init__(self, backend, layer, spec):
        self.backend, self.spec = backend, spec
        self.keys, self.values = backend.cache.keys[layer], backend.cache.values[layer]
        self.kernels = _KERNELS[backend.cache.kind]
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
    """Tell whether queries and keys wait for a rotation of the same kind."""
    a, b = q.rotation, k.rotation
    return a is not None and b is not None and (a.half, a.neox) == (b.half, b.neox)


def _record_fused(layout, value, form, inputs):
    """Record one row that rotates, stores and attends, and quantizes if asked."""
    backend, spec = layout.backend, layout.spec
    q, k = inputs[0].rotation, inputs[1].rotation
    raw, key, new = q.source.f32(), k.source.f32(), inputs[2].f32()
    query, out = backend.new(inputs[0]), backend.new(value)
    quantized = backend.new(value, "q8") if form == "q8" else None
    args = [*layout.attend_args(query, out), 0, raw, raw.stride, key, key.stride, new, new.stride]
    args += [q.table, k.table, q.half, q.neox]
    args += [quantized, quantized.stride] if quantized else [0, 0]
    written = [query, out, layout.keys] + ([quantized] if quantized else [])
    backend.recorder.row(
        "attention",
        compiled(layout.kernels[2]),
        args,
        Work(items=spec.n_head_kv, slot=SEGMENTS),
        reads=[raw, key, new],
        writes=written,
    )
    return quantized or out


def _record_store(layout, key, new):
    """Record storing apart from attending: a segment's tokens see each other's keys."""
    backend, spec = layout.backend, layout.spec
    put = compiled(layout.kernels[0])
    args = [key, key.stride, new, new.stride, spec.n_head_kv, spec.head_dim, spec.head_dim_v]
    args += layout.addresses
    backend.recorder.row(
        "store kv", put, args, Work(slot=SEGMENTS), reads=[key, new], writes=[layout.keys]
    )


def _record_attend(layout, value, query):
    backend, spec = layout.backend, layout.spec
    out = backend.new(value)
    backend.recorder.row(
        "attention",
        compiled(layout.kernels[1]),
        layout.attend_args(query, out),
        Work(items=spec.n_head_kv, slot=SEGMENTS),
        reads=[query, layout.keys],
        writes=[out],
    )
    return out
