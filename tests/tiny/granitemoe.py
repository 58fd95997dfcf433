"""Tiny models of transformers' GraniteMoe and GraniteMoeShared."""

from tiny.base import Tiny

GRANITEMOE = {
    "num_local_experts": 6,
    "attention_multiplier": 0.3,
    "embedding_multiplier": 3.0,
    "residual_multiplier": 0.5,
    "logits_scaling": 4.0,
}
GRANITEMOE_SHARED = GRANITEMOE | {"shared_intermediate_size": 32}
MODELS = [
    Tiny("granitemoe", "granitemoe", "GraniteMoe", GRANITEMOE),
    Tiny("granitemoe shared", "granitemoe", "GraniteMoeShared", GRANITEMOE_SHARED),
]
