"""attention as plan rows: new keys and values go to the cache, (segment, head) pairs attend."""

from numba import float32

from ggq.errors import ModelError
from ggq.jit import kernel, njit
from ggq.runtime.backends.numba import compiled, float_bits
from ggq.runtime.kernels.attend import MAX_HEAD, attend
from ggq.runtime.kernels.cache_store import store_new
from ggq.runtime.plan import SEGMENTS, Work
from ggq.simd import convert, f16x16, f32x16, load, store, store_half


@njit
def _f16_vector(address):
    return convert(load(address, f16x16), f32x16)


@njit
def _f32_vector(address):
    return load(address, f32x16)


@njit
def _put_f16(address, value):
    store_half(address, value)


@njit
def _put_f32(address, value):
    store(address, float32(value))


def _attend_f16():
    def attend_f16(args, first, last):
        attend(args, first, last, 2, _f16_vector)

    return kernel(attend_f16)


def _attend_f32():
    def attend_f32(args, first, last):
        attend(args, first, last, 4, _f32_vector)

    return kernel(attend_f32)


def _store_f16():
    def store_f16(args, first, last):
        store_new(args, first, last, 2, _put_f16)

    return kernel(store_f16)


def _store_f32():
    def store_f32(args, first, last):
        store_new(args, first, last, 4, _put_f32)

    return kernel(store_f32)


_KERNELS = {"f16": (_store_f16, _attend_f16), "f32": (_store_f32, _attend_f32)}


def run(backend, q, k, v, layer, spec):
    """Record the update of the layer's cache and the attention over it."""
    if spec.head_dim % 16 or spec.head_dim_v % 16 or max(spec.head_dim, spec.head_dim_v) > MAX_HEAD:
        raise ModelError(
            f"attention heads of {spec.head_dim} and {spec.head_dim_v} columns are not supported "
            f"on the CPU: multiples of 16 up to {MAX_HEAD} are"
        )
    cache, segments = backend.cache, backend.inputs.segments
    keys, values = cache.keys[layer], cache.values[layer]
    put, look = (compiled(b) for b in _KERNELS[cache.kind])

    def make(value, form, residual):
        query, key, new = q.f32(), k.f32(), v.f32()
        out = backend.new(value)
        args = [key, key.stride, new, new.stride, spec.n_head_kv, spec.head_dim, spec.head_dim_v]
        args += [keys.ctypes.data, values.ctypes.data, segments]
        backend.recorder.row(
            "store kv", put, args, Work(slot=SEGMENTS), reads=[key, new], writes=[keys]
        )
        sinks = backend.weight(spec.sinks).vector if spec.sinks else 0
        group = spec.n_head // spec.n_head_kv
        args = [query, query.stride, out, out.stride, spec.n_head_kv, group]
        args += [spec.head_dim, spec.head_dim_v, float_bits(spec.scale)]
        args += [float_bits(spec.softcap or 0.0), spec.window or 0, sinks]
        args += [keys.ctypes.data, values.ctypes.data, segments]
        backend.recorder.row(
            "attention",
            look,
            args,
            Work(items=spec.n_head_kv, slot=SEGMENTS),
            reads=[query, keys],
            writes=[out],
        )
        return out

    return backend.value(spec.n_head * spec.head_dim_v, q.slot, make)
