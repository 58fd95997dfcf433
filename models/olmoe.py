"""OLMoE: norms of queries and keys over all heads, every layer a mixture."""

from typing import Any

from ggq.models import ledger, llama
from ggq.models.base import Architecture
from ggq.models.decoder import DECODER_KEYS, EMBEDDING, FF_NORM, HEAD, MIXER_NORM
from ggq.models.hparams import HParams
from ggq.models.layers import attention, experts
from ggq.models.layers.attention import WHOLE_NORMS, Attention, rotation
from ggq.models.layers.base import Layer, Values
from ggq.models.layers.experts import EXPERT_TENSORS, Experts

__all__ = ["ARCHITECTURE"]


class Olmoe(Architecture):
    name = "olmoe"
    hf_classes = ("OlmoeForCausalLM",)
    hf_model_type = "olmoe"
    keys = (*DECODER_KEYS, *experts.KEYS)
    config_defaults = {  # noqa: RUF012 - read only
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "num_experts": 64,
        "num_experts_per_tok": 8,
    }
    tensors = (
        EMBEDDING,
        *HEAD,
        *MIXER_NORM,
        *attention.TENSORS,
        *WHOLE_NORMS,
        *FF_NORM,
        *EXPERT_TENSORS,
    )
    fixed = {  # noqa: RUF012 - read only
        "hidden_act": ledger.SILU,
        "clip_qkv": (),
        "norm_topk_prob": (False,),  # GGUF has no key for it
    }

    def layer(self, values: Values, i: int) -> Layer:
        mixer = Attention.of(values, i, rotation(values, "neox"), norms="all")
        return Layer(mixer, Experts.of(values, i))

    def forward(self, ops: Any, hp: HParams) -> Any:
        return llama.forward(ops, hp)

    def export_config(self, hp: HParams) -> dict[str, Any]:
        return {"num_experts": hp.n_expert}


ARCHITECTURE = Olmoe()
