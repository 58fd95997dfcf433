"""gate in numpy; tanh forms, which never overflow."""

import math

import numpy as np

from ggq.runtime.ops.gate import OAI_ALPHA, OAI_LIMIT

_erf = np.vectorize(math.erf, otypes=[np.float64])
KINDS = {
    "none": lambda x: x,
    "sigmoid": lambda x: 0.5 * (1.0 + np.tanh(0.5 * x)),
    "silu": lambda x: 0.5 * x * (1.0 + np.tanh(0.5 * x)),
    "gelu": lambda x: 0.5 * x * (1.0 + _erf(x / math.sqrt(2.0))),
    "gelu_tanh": lambda x: (
        0.5 * x * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))
    ),
}


def run(backend, gate, up, kind="silu"):
    """Return act(gate) * up."""
    if kind == "swiglu_oai":
        gate, up = np.minimum(gate, OAI_LIMIT), np.clip(up, -OAI_LIMIT, OAI_LIMIT)
        return KINDS["silu"](OAI_ALPHA * gate) / OAI_ALPHA * (up + 1)
    return KINDS[kind](gate) * up
