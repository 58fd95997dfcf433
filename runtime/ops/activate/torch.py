"""activate in torch."""

import functools

from torch.nn import functional

KINDS = {
    "gelu": functional.gelu,
    "gelu_tanh": functools.partial(functional.gelu, approximate="tanh"),
    "gelu_quick": lambda x: x * (1.702 * x).sigmoid(),
    "silu": functional.silu,
    "relu": functional.relu,
    "relu2": lambda x: functional.relu(x).square(),
}


def run(backend, x, kind):
    """Return act(x)."""
    return KINDS[kind](x)
