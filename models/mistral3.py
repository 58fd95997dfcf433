"""Mistral Small 3, Ministral 3: like llama, with YaRN and queries that grow with position."""

from collections.abc import Iterator, Mapping
from typing import Any

from ggq.models import llama
from ggq.models.base import Architecture
from ggq.models.decoder import DECODER_TENSORS, LLAMA_KEYS
from ggq.models.hparams import HParams
from ggq.models.layers.attention import Attention, rotation
from ggq.models.layers.base import Layer, Values
from ggq.models.layers.feed_forward import FeedForward
from ggq.models.layers.rope import ALL_FACTORS, scaled, stored_magnitude
from ggq.models.table import Key, changed, permuted
from ggq.models.vocabulary import LLAMA_VOCAB

__all__ = ["ARCHITECTURE"]


class Mistral3(Architecture):
    name = "mistral3"
    hf_classes = ("Mistral3ForConditionalGeneration", "Ministral3ForCausalLM")
    hf_model_type = "ministral3"
    peer_factors = ALL_FACTORS
    reads = ("sliding_window", "layer_types")
    rope_reads = ("llama_4_scaling_beta", "max_position_embeddings")

    def conflicts(self, config: Mapping[str, Any]) -> Iterator[tuple[str, Any, str]]:
        if window := config.get("sliding_window"):
            yield "sliding_window", window, "mistral3 is converted without a window only"
        if "sliding_attention" in (kinds := config.get("layer_types") or ()):
            yield "layer_types", kinds, "mistral3 is converted without windows only"
        rope = config["rope_parameters"]
        if (magnitude := rope.get("attention_factor")) is not None:
            yield "rope_parameters.attention_factor", magnitude, "mscale_all_dim is used instead"
        elif rope.get("mscale_all_dim") and rope.get("mscale", 1.0) != 1.0:
            yield "rope_parameters.mscale", rope["mscale"], "only 1.0 has a key"

    keys = changed(
        LLAMA_KEYS,
        Key(
            "{arch}.rope.scaling.attn_factor",
            (),
            "rope_attn_factor",
            "f32",
            derive=stored_magnitude,
        ),
        Key(
            "{arch}.rope.scaling.yarn_log_multiplier",
            attr="rope_log_multiplier",
            type="f32",
            derive=scaled("mscale_all_dim", "yarn"),
        ),
        Key(
            "{arch}.attention.temperature_scale",
            ("rope_parameters.llama_4_scaling_beta",),
            "rope_temperature",
            "f32",
        ),
    )
    config_defaults = {  # noqa: RUF012 - read only
        "head_dim": 128,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-5,
        "rope_theta": 1000000.0,
    }
    tensors = permuted(DECODER_TENSORS)
    vocab = LLAMA_VOCAB

    def layer(self, values: Values, i: int) -> Layer:
        return Layer(Attention.of(values, i, rotation(values, "norm")), FeedForward.of(values, i))

    def forward(self, ops: Any, hp: HParams) -> Any:
        return llama.forward(ops, hp)

    def export_config(self, hp: HParams) -> dict[str, Any]:
        rope = hp.rope
        if rope is None or rope.scaling != "yarn":
            return {}
        scaling = {
            "rope_type": "yarn",
            "rope_theta": rope.base,
            "factor": rope.factor,
            "original_max_position_embeddings": rope.original_context,
            "beta_fast": rope.beta_fast,
            "beta_slow": rope.beta_slow,
            "mscale": 1.0,
            "mscale_all_dim": rope.log_multiplier,
            "llama_4_scaling_beta": rope.temperature,
        }
        return {"rope_parameters": scaling, "rope_scaling": scaling}


ARCHITECTURE = Mistral3()
