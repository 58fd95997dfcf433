"""Every operation, in every back end that has it, on random input: equal to the float64 reference.

The input of an operation under test comes out of ``embed``, whose table is the input: so one small
``forward`` per case runs unchanged on all back ends, in two steps so that caches are used.
"""

import importlib
from contextlib import closing
from types import SimpleNamespace

import numpy as np
import pytest
from floats import distance, float_weights
from opcases import TOKENS, Case, found
from picturecases import CASES as PICTURES

from ggq.machine_code import Function
from ggq.models.layers.attention import Attention
from ggq.models.layers.base import Memory
from ggq.models.layers.delta_net import DeltaNet
from ggq.models.layers.experts import Routing
from ggq.models.layers.rope import Rope
from ggq.runtime.backends.numba.plan import OUTPUTS
from ggq.runtime.backends.reference import ReferenceOps
from ggq.runtime.engine.cpu.backend import CPUBackend
from ggq.runtime.engine.engine import Engine
from ggq.runtime.ops import op_names

HEADS, KV_HEADS, HEAD = 6, 2, 32
FIRST = 9  # tokens of the first step
TOLERANCE = 1e-4


def _shared(label):
    spec = Attention(HEADS, KV_HEADS, HEAD, HEAD, 0.25)
    tables = {"q": (TOKENS, HEADS * HEAD), "k": (TOKENS, KV_HEADS * HEAD)}

    def forward(o):
        first = o.attention(o.embed("q"), o.embed("k"), o.embed("v"), 0, spec)
        return o.attention(o.scale(first, 3.0), None, None, 0, spec)

    return Case("attention", label, forward, tables | {"v": tables["k"]})


def _rope(label, n_head=HEADS, **settings):
    rope = Rope(**({"kind": "norm", "dims": HEAD, "original_context": 64} | settings))
    tables = {"x": (TOKENS, n_head * HEAD), "factors": (HEAD // 2,)}
    return Case("rope", label, lambda o: o.rope(o.embed("x"), n_head, rope), tables)


def _attention(label, **settings):
    spec = Attention(HEADS, KV_HEADS, HEAD, settings.pop("head_dim_v", HEAD), 0.25, **settings)
    tables = {
        "q": (TOKENS, HEADS * HEAD),
        "k": (TOKENS, KV_HEADS * HEAD),
        "v": (TOKENS, KV_HEADS * spec.head_dim_v),
        "sinks": (HEADS,),
    }
    return Case(
        "attention",
        label,
        lambda o: o.attention(o.embed("q"), o.embed("k"), o.embed("v"), 0, spec),
        tables,
        causal=spec.causal,
    )


def _experts(op, label, shift=None, part=False, **settings):
    spec = Routing(8, settings.pop("n_used", 3), **settings)

    def forward(o):
        routed = o.route(o.embed("l"), spec)
        hidden = o.experts(o.embed("x"), routed, "up", bias=shift, rows=(8, 48) if part else None)
        return o.combine(o.experts(hidden, routed, "down"), routed)

    tables = {
        "l": (TOKENS, 8),
        "x": (TOKENS, 96),
        "up": (8, 56 if part else 40, 96),
        "down": (8, 64, 40),
    }
    return Case(op, label, forward, tables | {"ub": (8, 56 if part else 40), "extra": (8,)})


def _delta(label, n_head, n_key_heads, d, dv, **more):
    spec = DeltaNet(n_head, n_key_heads, d, dv, a="decay", dt="shift", **more)
    tables = {
        "x": (TOKENS, 2 * n_key_heads * d + n_head * dv),
        "alpha": (TOKENS, n_head),
        "beta": (TOKENS, n_head),
        "decay": (n_head,),
        "shift": (n_head,),
    }
    return Case(
        "delta",
        label,
        lambda o: o.delta(o.embed("x"), o.embed("alpha"), o.embed("beta"), 0, spec),
        tables,
    )


SINGLE = {"single": (TOKENS, 1)}
TAPS = {"taps": (96, 4)}
X = {"x": (TOKENS, 96)}
FAR = {"far": (TOKENS, 96)}
PAIR = {"a": (TOKENS, 96), "b": (TOKENS, 96)}
CASES = [
    *found(),
    Case("embed", "table", lambda o: o.embed("x"), X),
    Case("linear", "plain", lambda o: o.linear(o.embed("x"), "w"), X | {"w": (40, 96)}),
    Case(
        "linear",
        "bias",
        lambda o: o.linear(o.embed("x"), "w", bias="b"),
        X | {"w": (40, 96), "b": (40,)},
    ),
    Case(
        "linear",
        "rows",
        lambda o: o.linear(o.embed("x"), "w", bias="b", rows=(16, 40)),
        X | {"w": (64, 96), "b": (64,)},
    ),
    Case("norm", "rms", lambda o: o.norm(o.embed("x"), "w", 1e-5), X | {"w": (96,)}),
    Case(
        "norm", "heads", lambda o: o.norm(o.embed("x"), "w", 1e-5, width=HEAD), X | {"w": (HEAD,)}
    ),
    Case("norm", "gains", lambda o: o.norm(o.embed("x"), "w", 1e-5, width=32), X | {"w": (3, 32)}),
    Case("norm", "no gain", lambda o: o.norm(o.embed("x"), None, 1e-5), X),
    Case(
        "norm", "layer", lambda o: o.norm(o.embed("x"), "w", 1e-5, kind="layer"), X | {"w": (96,)}
    ),
    Case(
        "norm",
        "layer of an odd width",
        lambda o: o.norm(o.scale(o.embed("far"), 1.0), "w", 1e-5, kind="layer"),
        {"far": (TOKENS, 90), "w": (90,)},
    ),
    _rope("norm"),
    _rope("neox", kind="neox"),
    _rope("partial norm", dims=16),
    _rope("partial neox", kind="neox", dims=16),
    _rope("linear", scaling="linear", factor=4.0),
    _rope("factors", factors="factors", base=500000.0),
    _rope("yarn", kind="neox", scaling="yarn", factor=4.0, attn_factor=1.1),
    _rope("yarn of few pairs", scaling="yarn", factor=4.0, log_multiplier=0.7, truncate=False),
    _rope("temperature", temperature=0.5),
    _attention("grouped"),
    _attention("window", window=4),
    _attention("softcap", softcap=2.0),
    _attention("sinks", sinks="sinks"),
    _attention("whole", causal=False),
    _attention("window to both sides", window=8, causal=False),
    _attention("alibi to both sides", alibi=8.0, causal=False),
    _attention("narrow values", head_dim_v=16),
    _shared("of another layer"),
    Case("gate", "silu", lambda o: o.gate(o.embed("a"), o.embed("b"), kind="silu"), PAIR),
    Case("gate", "oai", lambda o: o.gate(o.embed("x"), o.embed("far"), "swiglu_oai"), X | FAR),
    Case("gate", "gelu_tanh", lambda o: o.gate(o.embed("a"), o.embed("b"), kind="gelu_tanh"), PAIR),
    Case("gate", "none", lambda o: o.gate(o.embed("a"), o.embed("b"), kind="none"), PAIR),
    Case("gate", "sigmoid", lambda o: o.gate(o.embed("a"), o.embed("b"), kind="sigmoid"), PAIR),
    Case("gate", "one", lambda o: o.gate(o.embed("single"), o.embed("x"), "sigmoid"), X | SINGLE),
    Case("columns", "part", lambda o: o.columns(o.embed("x"), 16, 40), X),
    Case("columns", "groups", lambda o: o.columns(o.embed("x"), 16, 16, group=32), X),
    Case("columns", "narrow", lambda o: o.columns(o.embed("x"), 2, 3, group=6), X),
    Case("heads", "three", lambda o: o.heads(o.embed("x"), "w"), X | {"w": (3, 48, 32)}),
    Case("join", "two", lambda o: o.join(o.embed("x"), o.embed("b"), 2), X | {"b": (TOKENS, 64)}),
    Case(
        "join",
        "shared",
        lambda o: o.join(o.embed("x"), o.embed("b"), 2, shared=True),
        X | {"b": (TOKENS, 32)},
    ),
    Case("shift", "row", lambda o: o.shift(o.embed("x"), "row"), X | {"row": (2, 96)}),
    *(
        Case("activate", kind, lambda o, kind=kind: o.activate(o.embed("x"), kind), X)
        for kind in ("gelu", "gelu_tanh", "gelu_quick", "silu", "relu", "relu2")
    ),
    Case("conv", "plain", lambda o: o.conv(o.embed("x"), "taps", 0), X | TAPS),
    Case("conv", "silu", lambda o: o.conv(o.embed("x"), "taps", 0, kind="silu"), X | TAPS),
    Case(
        "conv",
        "bias",
        lambda o: o.conv(o.embed("x"), "taps", 0, kind="silu", bias="shift"),
        X | TAPS | {"shift": (96,)},
    ),
    _delta("grouped", 6, 2, 32, 16),
    _delta("neighbours", 6, 2, 32, 16, grouped=True),
    _delta("wide values", 2, 2, 16, 48),
    _experts("route", "softmax"),
    _experts("route", "normalized", normalize=True, scale=2.5),
    _experts("route", "softmax of the chosen", gating="softmax_chosen"),
    _experts("route", "sigmoid", gating="sigmoid", bias="extra", normalize=True),
    _experts("route", "groups", gating="sigmoid", n_group=4, n_group_used=2, n_used=4),
    _experts("experts", "one", n_used=1),
    _experts("experts", "bias", shift="ub"),
    _experts("experts", "part", shift="ub", part=True),
    _experts("route", "scales", scales="extra", normalize=True),
    _experts("combine", "all", n_used=8),
    Case("add", "rows", lambda o: o.add(o.embed("a"), o.embed("b")), PAIR),
    Case("scale", "rows", lambda o: o.scale(o.embed("x"), -1.75), X),
    Case("softcap", "rows", lambda o: o.softcap(o.embed("x"), 0.5), X),
    Case("gather", "all", lambda o: o.gather(o.embed("x")), X),
]


def random_weights(case, rng):
    """Return the case's tables; those named ``factors`` are positive, as divisors of angles are."""
    draw = {
        "factors": lambda shape: rng.uniform(1.0, 8.0, shape),
        "decay": lambda shape: -rng.uniform(0.1, 2.0, shape),
        "far": lambda shape: 6 * rng.standard_normal(shape),
    }
    return float_weights({n: draw.get(n, rng.standard_normal)(s) for n, s in case.tables.items()})


STEPS = np.split(np.arange(TOKENS), [FIRST])


def in_two_steps(ops, forward):
    return np.concatenate([np.asarray(ops.step(forward, ids)) for ids in STEPS])


def on_torch(weights, case, width):
    pytest.importorskip("torch")
    from ggq.runtime.backends.torch.backend import TorchOps

    return in_two_steps(TorchOps(weights), case.forward)


class OneOperation:
    """An architecture whose only layer is the case: what the engine records instead of a model."""

    def __init__(self, forward):
        self._forward = forward

    def forward(self, ops, hp):
        value = self._forward(ops)
        return value if value.slot == OUTPUTS else ops.gather(value)


def on_numba(weights, case, width):
    held = Memory(KV_HEADS, HEAD, HEAD, states=(3 * 96, 6 * 32 * 16))
    hp = SimpleNamespace(arch="one operation", n_vocab=width, memories=[held], causal=case.causal)
    hp.pictures = False
    options = {"n_ctx": 64, "n_threads": 2, "cache_type": "f32"}
    backend = CPUBackend(OneOperation(case.forward), hp, weights, **options)
    with closing(Engine(hp, backend)) as engine:
        sequence = engine.sequence()
        engine.check_generates = lambda: None  # rows of an operation stand for logits
        found = np.concatenate([engine.evaluate(sequence, ids, every=True) for ids in STEPS])
        plans = backend._plans.values()
        kernels = [k for plan in plans for k in plan.keep if isinstance(k, Function)]
        assert kernels  # and all were made by an import: build_kernels.py finds them
        assert all(kernel.home for kernel in kernels)
        return found


BACK_ENDS = {"torch": on_torch, "numba": on_numba}


@pytest.mark.parametrize("back_end", BACK_ENDS)
@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.op}-{c.label}")
def test_agrees_with_reference(case, back_end, rng):
    weights = random_weights(case, rng)
    want = in_two_steps(ReferenceOps(weights), case.forward)
    got = BACK_ENDS[back_end](weights, case, want.shape[1])
    assert np.abs(want).max() > 0
    assert distance(got, want) <= TOLERANCE


def test_every_operation_has_a_case_and_all_back_ends():
    assert {case.op for case in CASES + PICTURES} == set(op_names())
    pytest.importorskip("torch")
    for name in op_names():
        for back_end in ("reference", *BACK_ENDS):
            module = importlib.import_module(f"ggq.runtime.ops.{name}.{back_end}")
            assert callable(module.run), name


def test_unknown_operation_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no operation levitate"):
        ReferenceOps({}).levitate  # noqa: B018


# --- the reference itself against the plainest form that there is ---


SLOPES = [1 / 4, 1 / 16, 1 / 64, 1 / 256, 1 / 2, 1 / 8]  # ALiBi's of six heads, as published


def naive_attention(q, k, v, spec, sinks):
    out = np.zeros((TOKENS, HEADS, spec.head_dim_v))
    for t in range(TOKENS):
        for h in range(HEADS):
            g = h // (HEADS // KV_HEADS)
            first, end = max(0, t - (spec.window or TOKENS) + 1), t + 1
            if not spec.causal:
                half = spec.window // 2 if spec.window else TOKENS
                first, end = max(0, t - half), min(TOKENS, t + half + 1)
            scores = [spec.scale * float(q[t, h] @ k[s, g]) for s in range(first, end)]
            if spec.softcap:
                scores = [spec.softcap * np.tanh(s / spec.softcap) for s in scores]
            if spec.alibi:
                scores = [s - SLOPES[h] * abs(t - at) for at, s in enumerate(scores, first)]
            total = sum(np.exp(s) for s in scores) + (0 if sinks is None else np.exp(sinks[h]))
            for s, score in enumerate(scores, first):
                out[t, h] += np.exp(score) / total * v[s, g]
    return out.reshape(TOKENS, -1)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"window": 4},
        {"softcap": 2.0},
        {"sinks": "sinks"},
        {"window": 1, "sinks": "sinks"},
        {"alibi": 8.0},
        {"alibi": 8.0, "window": 4},
        {"causal": False},
        {"alibi": 8.0, "causal": False},
        {"window": 4, "causal": False},
        {"window": 5, "causal": False},
    ],
    ids=str,
)
def test_reference_attention_is_the_textbook_sum(settings, rng):
    case = _attention("", **settings)
    ops = ReferenceOps(random_weights(case, rng))
    if case.causal:
        got = in_two_steps(ops, case.forward)
    else:
        got = ops.step(case.forward, np.arange(TOKENS))
    q, k, v = (ops.array(name).reshape(TOKENS, -1, HEAD) for name in "qkv")
    spec = Attention(HEADS, KV_HEADS, HEAD, HEAD, 0.25, **settings)
    sinks = ops.array("sinks") if spec.sinks else None
    assert distance(got, naive_attention(q, k, v, spec, sinks)) <= 1e-12


@pytest.mark.parametrize("kind", ["norm", "neox"])
def test_reference_rope_is_a_complex_rotation(kind, rng):
    case = _rope(kind, kind=kind, base=1000.0)
    ops = ReferenceOps(random_weights(case, rng))
    got = in_two_steps(ops, case.forward)
    x = ops.array("x").reshape(TOKENS, HEADS, HEAD)
    order = np.arange(HEAD).reshape(2, -1).T if kind == "neox" else np.arange(HEAD).reshape(-1, 2)
    want = x.copy()
    for position in range(TOKENS):
        for i, (a, b) in enumerate(order):
            turn = np.exp(1j * position * 1000.0 ** (-2 * i / HEAD))
            z = (x[position, :, a] + 1j * x[position, :, b]) * turn
            want[position, :, a], want[position, :, b] = z.real, z.imag
    assert distance(got, want.reshape(TOKENS, -1)) <= 1e-12


def test_gather_keeps_the_last_row_when_asked(rng):
    weights = random_weights(CASES[-1], rng)
    pytest.importorskip("torch")
    from ggq.runtime.backends.torch.backend import TorchOps

    for ops in (ReferenceOps(weights), TorchOps(weights)):
        ops.last_only = True
        rows = np.asarray(ops.step(CASES[-1].forward, [3, 1, 2]))
        np.testing.assert_array_equal(rows, np.float32(ReferenceOps(weights).array("x")[2:3]))
