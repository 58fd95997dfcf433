"""IBM Granite 3 with experts: granite's factors; some have an expert that sees every token."""

from typing import Any

from ggq.models import granite
from ggq.models.base import Architecture
from ggq.models.decoder import EMBEDDING, FF_NORM, HEAD, LLAMA_KEYS, MIXER_NORM
from ggq.models.granite import FACTOR_KEYS, Granite
from ggq.models.granitehybrid import ROUTED, SHARED
from ggq.models.hparams import HParams
from ggq.models.layers import attention, experts
from ggq.models.layers.attention import Attention, rotation
from ggq.models.layers.base import Layer, Values
from ggq.models.layers.experts import Experts
from ggq.models.layers.rope import ALL_FACTORS
from ggq.models.table import Key, permuted
from ggq.models.vocabulary import LLAMA_VOCAB

__all__ = ["ARCHITECTURE"]


class GraniteMoE(Architecture):
    name = "granitemoe"
    hf_classes = ("GraniteMoeForCausalLM", "GraniteMoeSharedForCausalLM")
    hf_model_type = "granitemoe"
    peer_factors = ALL_FACTORS
    keys = (
        *LLAMA_KEYS,
        *experts.KEYS,
        *FACTOR_KEYS,
        Key(
            "{arch}.expert_shared_feed_forward_length", ("shared_intermediate_size",), "n_ff_shared"
        ),
    )
    config_defaults = Granite.config_defaults | {
        "num_local_experts": 8,
        "num_experts_per_tok": 2,
    }
    tensors = (
        EMBEDDING,
        *HEAD,
        *MIXER_NORM,
        *permuted(attention.TENSORS),
        *FF_NORM,
        *ROUTED,
        *SHARED,
    )
    vocab = LLAMA_VOCAB

    def layer(self, values: Values, i: int) -> Layer:
        mixer = Attention.of(values, i, rotation(values, "norm"))
        return Layer(mixer, Experts.of(values, i, normalize=True))

    def forward(self, ops: Any, hp: HParams) -> Any:
        return granite.forward(ops, hp)

    def complete(self, values: Values) -> None:
        granite.inverted(values)

    def export_config(self, hp: HParams) -> dict[str, Any]:
        part = hp.find(Experts)
        if part is None or not part.n_ff_shared:
            return {}
        return {
            "architectures": ["GraniteMoeSharedForCausalLM"],
            "model_type": "granitemoeshared",
        }


ARCHITECTURE = GraniteMoE()
