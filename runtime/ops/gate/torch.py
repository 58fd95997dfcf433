"""gate in torch."""

import functools

from torch.nn import functional

KINDS = {
    "silu": functional.silu,
    "gelu_tanh": functools.partial(functional.gelu, approximate="tanh"),
}


def run(backend, gate, up, kind="silu"):
    """Return act(gate) * up."""
    return KINDS[kind](gate) * up
