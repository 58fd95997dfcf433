"""MiniMax M2: norms of all queries and all keys, part of each head rotates, sigmoid mixtures."""

from typing import Any

from ggq.models import ledger, llama
from ggq.models.base import Architecture
from ggq.models.decoder import DECODER_KEYS, EMBEDDING, FF_NORM, HEAD, MIXER_NORM, head_width
from ggq.models.hparams import HParams
from ggq.models.layers import attention, experts
from ggq.models.layers.attention import Attention, rotation
from ggq.models.layers.base import Layer, Values
from ggq.models.layers.experts import MOE, Experts, router_bias
from ggq.models.layers.rope import share
from ggq.models.table import Key, changed

__all__ = ["ARCHITECTURE"]


class MiniMaxM2(Architecture):
    name = "minimax-m2"
    hf_classes = ("MiniMaxM2ForCausalLM",)
    hf_model_type = "minimax_m2"
    fixed = {  # noqa: RUF012 - read only
        "hidden_act": ledger.SILU,
        "scoring_func": ("sigmoid",),
        "qk_norm_type": ("per_layer",),
        "use_routing_bias": (True,),
        "postnorm": (False,),
        **dict.fromkeys(
            [f"layernorm_{n}_beta" for n in ("full_attention", "linear_attention", "mlp")],
            (1.0,),
        ),
    }
    reads = (
        *("attn_type_list", "mtp_transformer_layers", "num_mtp_modules", "use_mtp"),
        *("shared_moe_mode", "rotary_dim"),
    )
    keys = changed(
        (*DECODER_KEYS, *experts.KEYS),
        Key("{arch}.expert_feed_forward_length", ("intermediate_size",), "n_ff_expert"),
        Key(
            "{arch}.rope.dimension_count",
            ("rotary_dim",),
            "rope_dim",
            derive=share(1.0, head_width),
        ),
        experts.gating_key("sigmoid"),
    )
    config_defaults = {  # noqa: RUF012 - read only
        "max_position_embeddings": 196608,
        "rms_norm_eps": 1e-6,
        "rope_theta": 5000000.0,
        "head_dim": 128,
        "num_key_value_heads": 8,
        "num_local_experts": 256,
        "num_experts_per_tok": 8,
    }
    tensors = (
        *(EMBEDDING, *HEAD, *MIXER_NORM, *attention.TENSORS, *attention.WHOLE_NORMS, *FF_NORM),
        *experts.MIXTRAL_TENSORS,
        router_bias(f"{MOE}e_score_correction_bias"),
    )

    def layer(self, values: Values, i: int) -> Layer:
        mixer = Attention.of(values, i, rotation(values, "neox"), norms="all")
        return Layer(mixer, Experts.of(values, i, gating="sigmoid", normalize=True))

    def forward(self, ops: Any, hp: HParams) -> Any:
        return llama.forward(ops, hp)


ARCHITECTURE = MiniMaxM2()
