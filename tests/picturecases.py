"""Uses of the operations of vision towers that all back ends must agree on; no tests here."""

import numpy as np
from opcases import Case

from ggq.models.layers.attention import Attention

N, WIDTH = 37, 3 * 40  # patches and their columns
INDEX = np.arange(36).reshape(9, 4)[::-1].copy()
SPEC = Attention(3, 3, 40, 40, 0.3, causal=False)


def _turned(kind):
    angles = np.random.default_rng(2).uniform(-9, 9, (N, 20))
    return Case("turn", kind, lambda o: o.turn(o.patches(), 3, angles, kind))


def _seen(label, bounds):
    def forward(o):
        x = o.patches()
        return o.mutual(x, o.scale(x, -0.7), o.scale(x, 2.0), SPEC, bounds)

    return Case("mutual", label, forward)


def _grouped(how):
    return Case("regroup", how, lambda o: o.regroup(o.patches(), INDEX, how))


def _given(o):
    return o.add(o.given(np.arange(N * WIDTH).reshape(N, WIDTH) / 999), o.patches())


CASES = [
    Case("patches", "rows", lambda o: o.scale(o.patches(), 3.0)),
    Case("given", "added", _given),
    Case("above", "two rows", lambda o: o.above(np.ones((2, WIDTH)) / 3, o.patches())),
    *(_turned(kind) for kind in ("norm", "neox", "halves")),
    *(_grouped(how) for how in ("join", "interleave", "mean")),
    _seen("all", None),
    _seen("windows", [5, 30, N]),
]
