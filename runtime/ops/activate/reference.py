"""activate in numpy."""

import numpy as np

from ggq.runtime.ops.gate.reference import KINDS as GATES

KINDS = {
    "gelu": GATES["gelu"],
    "gelu_tanh": GATES["gelu_tanh"],
    "gelu_quick": lambda x: x * GATES["sigmoid"](1.702 * x),
    "silu": GATES["silu"],
    "relu": lambda x: np.maximum(x, 0.0),
    "relu2": lambda x: np.maximum(x, 0.0) ** 2,
}


def run(backend, x, kind):
    """Return act(x)."""
    return KINDS[kind](x)
