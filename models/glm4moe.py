"""GLM 4.5 to 4.7: few dense layers, then sigmoid mixtures; half of each head's columns rotate."""

from typing import Any

from ggq.models import heads, ledger, llama
from ggq.models.base import Architecture
from ggq.models.decoder import DECODER_KEYS, EMBEDDING, HEAD, MIXER_NORM, head_width
from ggq.models.hparams import HParams
from ggq.models.layers import attention, experts, feed_forward, next_n
from ggq.models.layers.attention import Attention, rotary_share, rotation
from ggq.models.layers.base import Layer, Values
from ggq.models.layers.experts import Experts, router_bias, shared_rows
from ggq.models.layers.feed_forward import FeedForward
from ggq.models.layers.rope import share
from ggq.models.table import Key, absorbed_by, changed, norm

__all__ = ["ARCHITECTURE"]

FF_NORM = "post_attention_norm"  # what the norm before the feed-forward is called here


class Glm4Moe(Architecture):
    name = "glm4moe"
    hf_classes = ("Glm4MoeForCausalLM",)
    hf_model_type = "glm4_moe"
    heads_in = next_n.LAYERS
    heads_normed = False
    fixed = {  # noqa: RUF012 - read only
        "hidden_act": ledger.SILU,
        "n_group": (1,),
        "topk_group": (1,),
    }
    keys = changed(
        (*DECODER_KEYS, *experts.KEYS, *experts.WEIGHT_KEYS, experts.DENSE_KEY),
        Key("{arch}.rope.dimension_count", (), "rope_dim", derive=share(0.5, head_width)),
        experts.gating_key("sigmoid"),
        *next_n.KEYS,
    )
    config_defaults = {  # noqa: RUF012 - read only
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "num_key_value_heads": 8,
        "moe_intermediate_size": 1408,
        "num_experts_per_tok": 8,
        "n_shared_experts": 1,
        "n_routed_experts": 128,
        "routed_scaling_factor": 1.0,
        "first_k_dense_replace": 1,
        "norm_topk_prob": True,
    }
    tensors = (
        EMBEDDING,
        *HEAD,
        *MIXER_NORM,
        *attention.TENSORS,
        *attention.OPTIONAL_QK_NORMS,
        *norm(FF_NORM, "post_attention_layernorm"),
        *absorbed_by(
            (
                *feed_forward.TENSORS,
                *experts.EXPERT_TENSORS,
                router_bias("mlp.gate.e_score_correction_bias"),
                *shared_rows("mlp.shared_experts"),
            ),
            {"ffn_norm": FF_NORM},
        ),
        *next_n.TENSORS,
    )

    def layer(self, values: Values, i: int) -> Layer:
        mixer = Attention.of(values, i, rotation(values, "neox"), norms="head")
        if i < values["n_dense"]:
            return Layer(mixer, FeedForward.of(values, i))
        return Layer(mixer, Experts.of(values, i, gating="sigmoid"))

    def complete(self, values: Values) -> None:
        values["n_ff_shared"] = values["n_shared"] * (values.get("n_ff_expert") or 0)

    def forward(self, ops: Any, hp: HParams) -> Any:
        return llama.forward(ops, hp, ff_norm=FF_NORM)

    def predict(self, ops: Any, hp: HParams) -> Any:
        return heads.predict(ops, hp, ff_norm=FF_NORM)

    def export_config(self, hp: HParams) -> dict[str, Any]:
        return rotary_share(hp)


ARCHITECTURE = Glm4Moe()
