"""gate in torch."""

import functools

from torch.nn import functional

from ggq.runtime.ops.gate import OAI_ALPHA, OAI_LIMIT

KINDS = {
    "none": lambda x: x,
    "sigmoid": functional.sigmoid,
    "silu": functional.silu,
    "gelu": functional.gelu,
    "gelu_tanh": functools.partial(functional.gelu, approximate="tanh"),
}


def run(backend, gate, up, kind="silu"):
    """Return act(gate) * up."""
    if kind == "swiglu_oai":
        gate, up = gate.clamp(max=OAI_LIMIT), up.clamp(-OAI_LIMIT, OAI_LIMIT)
        return gate * (OAI_ALPHA * gate).sigmoid() * (up + 1)
    return KINDS[kind](gate) * up
