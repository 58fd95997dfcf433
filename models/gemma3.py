"""Gemma 3: five layers with a window and their own rope base for each that sees all; q/k norms."""

from collections.abc import Mapping
from typing import Any

from ggq.models.gemma2 import GEMMA_TENSORS, Gemma
from ggq.models.tables import QK_NORMS, plus_one

__all__ = ["ARCHITECTURE"]

LOCAL_BASE = 10000.0  # of the layers with a window, where neither config nor file says


class Gemma3(Gemma):
    name = "gemma3"
    hf_classes = ("Gemma3ForCausalLM", "Gemma3ForConditionalGeneration")
    hf_model_type = "gemma3_text"
    window_period = 6
    wide_layers = 62
    config_defaults = {  # noqa: RUF012 - read only
        "hidden_size": 2304,
        "intermediate_size": 9216,
        "num_hidden_layers": 26,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "vocab_size": 262208,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0,
        "query_pre_attn_scalar": 256,
        "sliding_window": 4096,
    }
    tensors = (*GEMMA_TENSORS, *plus_one(QK_NORMS))

    def config(self, config: Mapping[str, Any]) -> dict[str, Any]:
        flat = super().config(config)
        local = flat.get("rope_local_base_freq", LOCAL_BASE)
        flat["rope_local"] = {"rope_theta": local, **flat.get("rope_local", {})}
        return flat

    def export_config(self, hp: Any) -> dict[str, Any]:
        return super().export_config(hp) | {"rope_local_base_freq": hp.rope_local.base}

    def finish(self, values: dict[str, Any]) -> dict[str, Any]:
        if "rope_local" not in values:
            plain = type(values["rope"])(self.rope_kind, values["rope_dim"], LOCAL_BASE)
            values = values | {"rope_local": plain}
        return super().finish(values)


ARCHITECTURE = Gemma3()
