"""attention as plan rows: new keys and values go to the cache, (segment, head) pairs attend."""

from types import SimpleNamespace

from ggq.errors import ModelError
from ggq.jit import kernel
from ggq.runtime.backends.numba.plan import SEGMENTS, SPLITS, SPLITS_OF_ALL, Work
from ggq.runtime.kernels.attend import ATTEND, MAX_HEAD, MAX_KEY, chunks_of
from ggq.runtime.kernels.attend import attend as attend_stored
from ggq.runtime.kernels.attend_new import ATTEND_NEW
from ggq.runtime.kernels.attend_new import attend_new as attend_all
from ggq.runtime.kernels.cache_store import STORE, store_new
from ggq.runtime.kernels.cached import KEYS, TYPES, VALUES
from ggq.runtime.ops.attention import reach, slopes


def _kernels(key, value):
    """Return the kernels of a cache whose keys and values are of these types (cached.py).

    ``store`` puts new ones there, ``attend`` reads; ``attend_new`` does both, and the rotation
    before and the quantization after.
    """

    @kernel(STORE)
    def store(args, first, last):
        store_new(args, first, last, key, value)

    @kernel(ATTEND)
    def attend(args, first, last):
        attend_stored(args, first, last, key, value)

    @kernel(ATTEND_NEW)
    def attend_new(args, first, last):
        attend_all(args, first, last, key, value)

    return SimpleNamespace(store=store, attend=attend, attend_new=attend_new)


KERNELS = {
    (k, v): _kernels(key, value)
    for k, key in zip(TYPES, KEYS, strict=True)
    for v, value in zip(TYPES, VALUES, strict=True)
}


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

    fused = spec.causal and backend.decoding and (k is None or _same_rotation(q, k))

    def make(value, form, residual):
        if fused:
            return _record_fused(layout, value, form, (q, k, v))
        if k is not None:
            _record_store(layout, k.f32(), v.f32())
        return _record_attend(layout, value, q.f32())

    width = spec.n_head * spec.head_dim_v
    return backend.value(width, q.slot, make, quantizes=pairs and fused)


class _Layout:
    """Where a layer's attention finds its cache and what its kernels' arguments are."""

    def __init__(self, backend, layer, spec):
        self.backend, self.spec = backend, spec
        self.keys, self.values = backend.cache.keys[layer], backend.cache.values[layer]
        self.kernels = KERNELS[tuple(backend.cache.kinds)]
        segments = backend.inputs.segments(backend.cache.windowed[layer], spec.mutual)
        self.place = {
            "n_kv": spec.n_head_kv,
            "head": spec.head_dim,
            "head_v": spec.head_dim_v,
            "keys": self.keys.ctypes.data,
            "values": self.values.ctypes.data,
            "segments": segments,
        }

    def attend_args(self, query, out):
        """Return the fields of runtime/kernels/attend.py."""
        spec = self.spec
        return {
            "queries": query,
            "out": out,
            "group": spec.n_head // spec.n_head_kv,
            "scale": spec.scale,
            "softcap": spec.softcap or 0.0,
            "window": reach(spec),
            "sinks": self.backend.weight(spec.sinks).vector if spec.sinks else None,
            "slopes": slopes(spec.n_head, spec.alibi).ctypes.data if spec.alibi else None,
            **self.place,
        }


def _same_rotation(q, k):
    """Tell whether queries and keys wait for a rotation of the same kind, or both for none."""
    a, b = q.rotation, k.rotation
    if a is None or b is None:
        return a is b
    return (a.half, a.neox) == (b.half, b.neox)


def _record_fused(layout, value, form, inputs):
    """Record one row that rotates, stores and attends, and quantizes if asked."""
    backend, spec, recorder = layout.backend, layout.spec, layout.backend.recorder
    rotation, rotates_keys = inputs[0].rotation, inputs[1] and inputs[1].rotation
    sources = [x if x is None or x.rotation is None else x.rotation.source for x in inputs]
    query, key, new = (x and x.f32() for x in sources)
    out = backend.new(value)
    quantized = backend.new(value, "q8") if form == "q8" else None
    n_chunks = chunks_of(backend.cache.n_pages)
    parts = recorder.buffer(spec.n_head * n_chunks * (64 + 4 * spec.head_dim_v))
    stored = layout.keys
    recorder.row(
        "attention",
        layout.kernels.attend_new,
        Work(items=spec.n_head_kv, slot=SPLITS_OF_ALL),
        reads=[query, key, new] if key else [query, stored],
        writes=[b for b in (out, quantized, parts, key and stored) if b is not None],
        **layout.attend_args(query, out),
        new_keys=key,
        new_values=new,
        query_table=rotation and rotation.table,
        key_table=rotates_keys and rotates_keys.table,
        half=rotation and rotation.half,
        neox=rotation and rotation.neox,
        quantized=quantized,
        splits=recorder.state.address(SPLITS),
        partials=parts,
        max_chunks=n_chunks,
        ended=backend.inputs.ended(spec.n_head_kv),
    )
    return quantized or out


def _record_store(layout, key, new):
    """Record storing apart from attending: a segment's tokens see each other's keys."""
    layout.backend.recorder.row(
        "store kv",
        layout.kernels.store,
        Work(slot=SEGMENTS),
        reads=[key, new],
        writes=[layout.keys],
        new_keys=key,
        new_values=new,
        **layout.place,
    )


def _record_attend(layout, value, query):
    out = layout.backend.new(value)
    layout.backend.recorder.row(
        "attention",
        layout.kernels.attend,
        Work(items=layout.spec.n_head_kv, slot=SEGMENTS),
        reads=[query, layout.keys],
        writes=[out],
        **layout.attend_args(query, out),
    )
    return out
