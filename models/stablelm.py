"""StableLM 3B and StableLM 2 1.6B: like llama with LayerNorms, a quarter of each head rotates."""

from collections.abc import Mapping
from typing import Any

from ggq.models import ledger, starcoder2
from ggq.models.base import Architecture
from ggq.models.decoder import DECODER_KEYS, EMBEDDING, HEAD, head_width
from ggq.models.encoder import encoder_norm
from ggq.models.hparams import HParams
from ggq.models.layers import attention, feed_forward
from ggq.models.layers.attention import Attention, rotary_share, rotation
from ggq.models.layers.base import Layer, Values
from ggq.models.layers.feed_forward import FeedForward
from ggq.models.layers.rope import share
from ggq.models.table import BLOCK, LAYER, Key, changed

__all__ = ["ARCHITECTURE"]


OLDER = {"rope_pct": "partial_rotary_factor", "norm_eps": "layer_norm_eps"}  # StableLMEpoch's


class StableLM(Architecture):
    name = "stablelm"
    hf_classes = (
        *("StableLmForCausalLM", "StableLMEpochForCausalLM", "LlavaStableLMEpochForCausalLM"),
    )
    hf_model_type = "stablelm"
    keys = changed(
        DECODER_KEYS,
        Key("{arch}.attention.layer_norm_epsilon", ("layer_norm_eps",), "norm_eps", "f32", True),
        Key("{arch}.rope.dimension_count", (), "rope_dim", derive=share(0.25, head_width)),
        Key("{arch}.use_parallel_residual", ("use_parallel_residual",), type="bool"),
        without=("{arch}.attention.layer_norm_rms_epsilon",),
    )
    config_defaults = {  # noqa: RUF012 - read only
        "max_position_embeddings": 4096,
        "layer_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "use_parallel_residual": False,
    }
    tensors = (
        EMBEDDING,
        *encoder_norm("output_norm", "model.norm"),
        HEAD[1],
        *encoder_norm(f"{BLOCK}attn_norm", f"{LAYER}input_layernorm"),
        *attention.TENSORS,
        *encoder_norm(f"{BLOCK}ffn_norm", f"{LAYER}post_attention_layernorm"),
        *feed_forward.TENSORS,
    )
    reads = tuple(OLDER)
    fixed = {  # noqa: RUF012 - StableLM 2 12B has the others, read only
        "hidden_act": ledger.SILU,
        "qk_layernorm": (False,),
        "use_parallel_residual": (False,),
        "rotary_scaling_factor": (1.0,),
    }

    def layer(self, values: Values, i: int) -> Layer:
        return Layer(Attention.of(values, i, rotation(values, "neox")), FeedForward.of(values, i))

    def forward(self, ops: Any, hp: HParams) -> Any:
        return starcoder2.forward(ops, hp)

    def config(self, config: Mapping[str, Any]) -> dict[str, Any]:
        given = {new: config[old] for old, new in OLDER.items() if config.get(old) is not None}
        return super().config({**config, **given})

    def export_config(self, hp: HParams) -> dict[str, Any]:
        return rotary_share(hp)


ARCHITECTURE = StableLM()
