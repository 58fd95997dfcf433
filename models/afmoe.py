"""Arcee's Trinity (AFMoE): gated attention, windows with rotation and few layers with neither."""

from collections.abc import Iterator, Mapping
from typing import Any

from ggq.models import glm4, ledger
from ggq.models.base import Architecture
from ggq.models.decoder import DECODER_KEYS, EMBEDDING, HEAD, MIXER_NORM, VOCAB_KEY
from ggq.models.hparams import HParams
from ggq.models.layers import attention, experts, feed_forward
from ggq.models.layers.attention import Attention, rotation, windowed
from ggq.models.layers.base import Layer, Values
from ggq.models.layers.experts import Experts, router_bias, shared_rows
from ggq.models.layers.feed_forward import FeedForward
from ggq.models.table import Key, changed, norm, renamed, rows

__all__ = ["ARCHITECTURE"]

PERIOD = 4  # every fourth layer sees all and has no positions
GATE: dict[str, Any] = {"input": "attn_in", "absorbs": "attn_norm", "part": Attention}


class Afmoe(Architecture):
    name = "afmoe"
    hf_classes = ("AfmoeForCausalLM",)
    hf_model_type = "afmoe"
    fixed = {  # noqa: RUF012 - read only
        "hidden_act": ledger.SILU,
        "global_attn_every_n_layers": (PERIOD,),
        "mup_enabled": (True,),
        "route_norm": (True,),
        "score_func": ("sigmoid",),
        **dict.fromkeys(("n_group", "topk_group", "num_expert_groups", "num_limited_groups"), (1,)),
    }
    reads = ("layer_types", "load_balance_coeff", "use_grouped_mm")
    keys = changed(
        (*DECODER_KEYS, VOCAB_KEY, *experts.KEYS, *attention.window_keys(PERIOD, lambda c: None)),
        Key("{arch}.expert_shared_count", ("num_shared_experts",), "n_shared", default=0),
        Key("{arch}.leading_dense_block_count", ("num_dense_layers",), "n_dense", default=0),
        Key("{arch}.expert_weights_norm", (), "expert_normalize", "bool", derive=lambda c: True),
        Key("{arch}.expert_weights_scale", ("route_scale",), "expert_scale", "f32"),
        experts.gating_key("sigmoid"),
    )
    config_defaults = {  # noqa: RUF012 - read only
        "max_position_embeddings": 16384,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "head_dim": 128,
        "mup_enabled": False,
        "num_dense_layers": 1,
        "num_experts": 64,
        "num_experts_per_tok": 6,
        "num_shared_experts": 2,
        "moe_intermediate_size": 1408,
        "route_scale": 1.0,
        "sliding_window": 1024,
    }
    tensors = (
        *(EMBEDDING, *HEAD, *MIXER_NORM, *attention.TENSORS, *attention.QK_NORMS),
        *rows("attn_gate", "self_attn.gate_proj", ("o", "embd"), bias=False, role="other", **GATE),
        *norm("post_attention_norm", "post_attention_layernorm"),
        *norm("ffn_norm", "pre_mlp_layernorm"),
        *feed_forward.TENSORS,
        *renamed(experts.EXPERT_TENSORS, {"mlp.gate.weight": "mlp.router.gate.weight"}),
        router_bias("mlp.expert_bias"),
        *shared_rows("mlp.shared_experts"),
        *norm("post_ffw_norm", "post_mlp_layernorm"),
    )

    def conflicts(self, config: Mapping[str, Any]) -> Iterator[tuple[str, Any, str]]:
        if not config["mup_enabled"]:
            yield "mup_enabled", False, "embeddings are scaled here"
        kinds = config.get("layer_types")
        wanted = [(i + 1) % PERIOD != 0 for i in range(config["num_hidden_layers"])]
        if kinds and [kind == "sliding_attention" for kind in kinds] != wanted:
            yield "layer_types", kinds, f"every {PERIOD}th layer sees all here"

    def layer(self, values: Values, i: int) -> Layer:
        local = windowed(values, i, PERIOD)
        window = values["window"] if local else None
        rope = rotation(values, "neox") if (i + 1) % PERIOD else None
        mixer = Attention.of(values, i, rope, norms="head", window=window)
        if i < values["n_dense"]:
            return Layer(mixer, FeedForward.of(values, i))
        return Layer(mixer, Experts.of(values, i, gating="sigmoid"))

    def complete(self, values: Values) -> None:
        values["n_ff_shared"] = values["n_shared"] * (values.get("n_ff_expert") or 0)
        values["embedding_scale"] = float(values["n_embd"]) ** 0.5

    def forward(self, ops: Any, hp: HParams) -> Any:
        return glm4.forward(ops, hp)

    def export_config(self, hp: HParams) -> dict[str, Any]:
        return {"mup_enabled": True, "num_experts": hp.n_expert, "num_local_experts": None}


ARCHITECTURE = Afmoe()
