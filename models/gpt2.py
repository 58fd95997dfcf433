"""GPT-2, DistilGPT-2, Cerebras-GPT: learned positions, LayerNorms, tanh GELU, biases on all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from ggq.models import starcoder2
from ggq.models.base import Architecture
from ggq.models.decoder import DECODER_KEYS, EMBEDDING, HEAD, LAYER_NORM_KEY
from ggq.models.encoder import encoder_norm
from ggq.models.hparams import HParams
from ggq.models.layers import attention
from ggq.models.layers.attention import Attention
from ggq.models.layers.base import Layer, Values
from ggq.models.layers.feed_forward import UNGATED_TENSORS, FeedForward
from ggq.models.table import BLOCK, LAYER, Key, Tensor, changed, conv1d, renamed, sourced

__all__ = ["ARCHITECTURE", "GPT_KEYS", "GPT_TENSORS", "NAMES", "SETTINGS", "Gpt", "ff_key"]

SETTINGS = {
    "num_hidden_layers": "n_layer",
    "num_attention_heads": "n_head",
    "hidden_size": "n_embd",
    "max_position_embeddings": "n_positions",
    "intermediate_size": "n_inner",
}
NAMES = {
    "model.embed_tokens": "transformer.wte",
    "model.norm": "transformer.ln_f",
    "model.layers": "transformer.h",
    "input_layernorm": "ln_1",
    "post_attention_layernorm": "ln_2",
    "self_attn.qkv_proj": "attn.c_attn",
    "self_attn.o_proj": "attn.c_proj",
    "up_proj": "c_fc",
    "down_proj": "c_proj",
}


def ff_key(width: str = "n_embd", *given: str) -> Key:
    """Return the key of feed-forwards four times as wide as the embedding, if no setting says."""

    def derive(config: Mapping[str, Any]) -> int | None:
        n_embd = config.get(width)
        return 4 * n_embd if isinstance(n_embd, int) else None

    return Key("{arch}.feed_forward_length", given, "n_ff", "u32s", required=True, derive=derive)


GPT_KEYS = changed(
    sourced(DECODER_KEYS, SETTINGS),
    ff_key("n_embd", "n_inner"),
    Key("{arch}.attention.head_count_kv", (), "n_head_kv", "u32s"),
    LAYER_NORM_KEY,
    without=("{arch}.attention.layer_norm_rms_epsilon", "{arch}.rope.freq_base"),
)
GPT_TENSORS = renamed(
    (
        EMBEDDING,
        Tensor(
            "position_embd.weight",
            ("transformer.wpe.weight",),
            ("positions", "embd"),
            role="kept",
            f32=True,
        ),
        *encoder_norm("output_norm", "model.norm"),
        HEAD[1],
        *encoder_norm(f"{BLOCK}attn_norm", f"{LAYER}input_layernorm"),
        *attention.FUSED_TENSORS,
        *encoder_norm(f"{BLOCK}ffn_norm", f"{LAYER}post_attention_layernorm"),
        *UNGATED_TENSORS,
    ),
    NAMES,
)


class Gpt(Architecture):
    """What GPT-2 and StarCoder share: the graph, and the names of settings and tensors."""

    hf_base = "transformer."
    keys = GPT_KEYS
    config_defaults = {  # noqa: RUF012 - read only
        "layer_norm_epsilon": 1e-5,
        "tie_word_embeddings": True,
    }
    reads: ClassVar[tuple[str, ...]] = ("hidden_act",)
    rope_types = ("default",)

    def forward(self, ops: Any, hp: HParams) -> Any:
        x = ops.add(ops.embed("token_embd.weight"), ops.embed("position_embd.weight", "positions"))
        return starcoder2.decode(ops, x, hp)

    def complete(self, values: Values) -> None:
        values["first_position"] = 0


class Gpt2(Gpt):
    name = "gpt2"
    hf_classes = ("GPT2LMHeadModel", "GPT2Model")
    hf_model_type = "gpt2"
    fixed = {  # noqa: RUF012 - read only
        "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
        "scale_attn_weights": (True,),
        "scale_attn_by_inverse_layer_idx": (False,),
        "add_cross_attention": (False,),
    }
    tensors = conv1d(GPT_TENSORS)

    def layer(self, values: Values, i: int) -> Layer:
        mixer = Attention.of(values, i, None, fused=True)
        return Layer(mixer, FeedForward.of(values, i, activation="gelu_tanh", gated=False))

    def export_config(self, hp: HParams) -> dict[str, Any]:
        return {"activation_function": "gelu_new"}


ARCHITECTURE = Gpt2()
