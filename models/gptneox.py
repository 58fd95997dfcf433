"""GPT-NeoX and Pythia: two LayerNorms of one input, the parts side by side, exact GELU."""

from collections.abc import Mapping
from typing import Any

from ggq.errors import ModelError
from ggq.models.base import Architecture
from ggq.models.decoder import DECODER_KEYS, EMBEDDING, HEAD, head_width, unembed
from ggq.models.encoder import encoder_norm
from ggq.models.hparams import HParams
from ggq.models.layers import attention
from ggq.models.layers.attention import Attention, rotary_share, rotation
from ggq.models.layers.base import Layer, Values
from ggq.models.layers.feed_forward import UNGATED_TENSORS, FeedForward
from ggq.models.layers.linear import layer_norm
from ggq.models.layers.rope import share
from ggq.models.table import BLOCK, LAYER, Key, changed, each_head, renamed

__all__ = ["ARCHITECTURE"]

NAMES = {
    "model.embed_tokens": "gpt_neox.embed_in",
    "model.norm": "gpt_neox.final_layer_norm",
    "model.layers": "gpt_neox.layers",
    "lm_head": "embed_out",
    "self_attn.qkv_proj": "attention.query_key_value",
    "self_attn.o_proj": "attention.dense",
    "up_proj": "dense_h_to_4h",
    "down_proj": "dense_4h_to_h",
}


def forward(ops: Any, hp: HParams) -> Any:
    """Return the logits of a decoder whose layers' parts, each under its own norm, are added."""
    x = ops.embed("token_embd.weight")
    for layer in hp.layers:
        p = layer.prefix
        fed = layer.feed.forward(ops, layer_norm(ops, x, f"{p}ffn_norm", hp.norm_eps))
        y = layer.mixer.forward(ops, layer_norm(ops, x, f"{p}attn_norm", hp.norm_eps))
        x = ops.add(ops.add(x, y), fed)
    return unembed(ops, layer_norm(ops, ops.gather(x), "output_norm", hp.norm_eps), hp)


class GptNeoX(Architecture):
    name = "gptneox"
    hf_classes = ("GPTNeoXForCausalLM",)
    hf_model_type = "gpt_neox"
    fixed = {  # noqa: RUF012 - read only
        "hidden_act": ("gelu",),
        "use_parallel_residual": (True,),
    }
    reads = ("rotary_pct", "rotary_emb_base")
    keys = changed(
        DECODER_KEYS,
        Key("{arch}.attention.layer_norm_epsilon", ("layer_norm_eps",), "norm_eps", "f32", True),
        Key("{arch}.rope.dimension_count", (), "rope_dim", derive=share(0.25, head_width)),
        Key("{arch}.use_parallel_residual", ("use_parallel_residual",), "parallel", "bool"),
        without=("{arch}.attention.layer_norm_rms_epsilon",),
    )
    config_defaults = {  # noqa: RUF012 - read only
        "max_position_embeddings": 2048,
        "layer_norm_eps": 1e-5,
        "use_parallel_residual": True,
    }
    tensors = renamed(
        (
            EMBEDDING,
            *encoder_norm("output_norm", "model.norm"),
            HEAD[1],
            *encoder_norm(f"{BLOCK}attn_norm", f"{LAYER}input_layernorm"),
            *each_head(attention.FUSED_TENSORS),
            *encoder_norm(f"{BLOCK}ffn_norm", f"{LAYER}post_attention_layernorm"),
            *UNGATED_TENSORS,
        ),
        NAMES,
    )

    def layer(self, values: Values, i: int) -> Layer:
        mixer = Attention.of(values, i, rotation(values, "neox"), fused=True)
        return Layer(mixer, FeedForward.of(values, i, activation="gelu", gated=False))

    def forward(self, ops: Any, hp: HParams) -> Any:
        return forward(ops, hp)

    def export_config(self, hp: HParams) -> dict[str, Any]:
        return rotary_share(hp)

    def complete(self, values: Values) -> None:
        if values.get("parallel") is False:
            raise ModelError("gptneox: use_parallel_residual false is not supported")

    def config(self, config: Mapping[str, Any]) -> dict[str, Any]:
        older = {"partial_rotary_factor": "rotary_pct", "rope_theta": "rotary_emb_base"}
        given = {"partial_rotary_factor": None}  # transformers reads the older name
        given |= {new: config[old] for new, old in older.items() if config.get(old) is not None}
        return super().config({"rope_theta": 10000.0, **config, **given})


ARCHITECTURE = GptNeoX()
