"""Keys and values in 4 bits: attention's kernels against a float64 twin, and what is refused."""

from contextlib import closing
from types import SimpleNamespace

import numpy as np
import pytest
from floats import distance, float_weights

from ggq.errors import UsageError
from ggq.models.layers.attention import Attention
from ggq.models.layers.base import Memory
from ggq.runtime.backends.numba.plan import OUTPUTS
from ggq.runtime.backends.reference import ReferenceOps
from ggq.runtime.cache.kvcache import KVCache
from ggq.runtime.cache.layout import PAGE
from ggq.runtime.cache.sizes import cache_bytes
from ggq.runtime.engine.cpu.backend import CPUBackend
from ggq.runtime.engine.engine import Engine

TOKENS, HEADS, KV_HEADS = PAGE + 21, 3, 1
STEPS = np.split(np.arange(TOKENS), [PAGE + 9, PAGE + 10])


def hadamard(size):
    """Return Sylvester's orthogonal matrix."""
    matrix = np.ones((1, 1))
    while len(matrix) < size:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return matrix / np.sqrt(size)


def rounded(rows):
    """Return what is left of rows (n, width) after rotation and 4 bits, the plain way."""
    size = rows.shape[1] & -rows.shape[1]
    turned = (rows.reshape(-1, size).astype(np.float64) @ hadamard(size)).reshape(-1, 32)
    largest = turned[np.arange(len(turned)), abs(turned).argmax(axis=1)][:, None]
    largest[largest == 0] = 1
    codes = np.clip(np.rint(turned * (-8 / largest)), -8, 7)
    scales = (largest / -8).astype(np.float16).astype(np.float64)
    return ((codes * scales).reshape(-1, size) @ hadamard(size)).reshape(rows.shape)


def attend(spec, tables, kind):
    """Return the outputs of the runtime's attention, long steps and a short one."""

    def forward(o):
        value = o.attention(o.embed("q"), o.embed("k"), o.embed("v"), 0, spec)
        return value if value.slot == OUTPUTS else o.gather(value)

    memory = Memory(KV_HEADS, spec.head_dim, spec.head_dim_v)
    width = HEADS * spec.head_dim_v
    hp = SimpleNamespace(arch="one operation", n_vocab=width, memories=[memory], causal=True)
    hp.pictures = False
    shape = {"n_ctx": 2 * PAGE, "n_threads": 2, "cache_type": kind}
    model = SimpleNamespace(forward=lambda ops, hp: forward(ops))
    backend = CPUBackend(model, hp, float_weights(tables), **shape)
    with closing(Engine(hp, backend)) as engine:
        engine.check_generates = lambda: None  # rows of an operation stand for logits
        sequence = engine.sequence()
        return np.concatenate([engine.evaluate(sequence, ids, every=True) for ids in STEPS])


def exact(spec, tables):
    ops = ReferenceOps(float_weights(tables))

    def forward(o):
        return o.attention(o.embed("q"), o.embed("k"), o.embed("v"), 0, spec)

    return np.asarray(ops.step(forward, np.arange(TOKENS)))


@pytest.mark.parametrize(
    ("kind", "heads", "settings"),
    [
        ("q4_0", (64, 64), {}),
        ("q4_0", (96, 96), {"window": 40}),  # three blocks of 32
        ("q4_0", (576, 512), {}),  # latent attention's
        (("f16", "q4_0"), (128, 128), {"softcap": 3.0}),
        (("q4_0", "f32"), (32, 32), {}),
    ],
)
def test_attention_equals_its_twin(kind, heads, settings, rng):
    """As far as float32 goes: a code between two may become the other one."""
    head, head_v = heads
    spec = Attention(HEADS, KV_HEADS, head, head_v, head**-0.5, **settings)
    widths = {"q": HEADS * head, "k": head, "v": head_v}
    tables = {name: rng.standard_normal((TOKENS, width)) for name, width in widths.items()}
    tables["k"][:, 5] *= 20  # an outlier's channel, as keys have them
    key, value = (kind, kind) if isinstance(kind, str) else kind
    twins = dict(tables)
    for name, its in (("k", key), ("v", value)):
        if its == "q4_0":
            twins[name] = rounded(tables[name].astype(np.float32))
    got, want = attend(spec, tables, kind), exact(spec, twins)
    assert distance(got, want) < 3e-3
    assert distance(exact(spec, tables), want) > 0.03  # the twin does round


def test_extreme_values_stay_finite(rng):
    spec = Attention(HEADS, KV_HEADS, 64, 64, 0.125)
    tables = {"q": rng.standard_normal((TOKENS, HEADS * 64))}
    tables |= {name: rng.standard_normal((TOKENS, 64)) for name in "kv"}
    tables["k"][:20] = 0  # nothing to scale by
    tables["v"][:20] = 0
    tables["v"][20:40] *= 1e4  # near a half's end
    tables["q"][30:] *= 1e-6  # and the low columns' queries another 2**28 smaller
    got = attend(spec, tables, "q4_0")
    assert np.isfinite(got).all()
    assert not got[:20].any()
    twins = {name: rounded(tables[name].astype(np.float32)) for name in "kv"}
    assert distance(got, exact(spec, tables | twins)) < 3e-3


def test_memory_is_28_percent_of_f16():
    layers = [Memory(2, 64, 128), Memory(1, 96, 32)]
    size = cache_bytes(layers, PAGE, "q4_0")
    assert size / cache_bytes(layers, PAGE, "f16") == 18 / 64
    cache = KVCache(layers, PAGE, "q4_0")
    assert size == sum(a.nbytes for a in (*cache.keys, *cache.values))


def test_heads_of_part_blocks_are_refused():
    with pytest.raises(UsageError, match="q4_0: heads of 80 columns, no multiple of 32"):
        KVCache([Memory(1, 80, 80)], PAGE, "q4_0")
    with pytest.raises(UsageError, match="q4_0: heads of 16 columns, no multiple of 32"):
        KVCache([Memory(1, 80, 16)], PAGE, ("f16", "q4_0"))
