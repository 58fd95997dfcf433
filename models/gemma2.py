"""Gemma 2: windows on every other layer, norms before and after, capped scores and logits."""

from collections.abc import Mapping
from typing import Any

from ggq.models.base import HParams, Key
from ggq.models.blocks import Decoder
from ggq.models.keys import DECODER_KEYS, WINDOW_KEYS
from ggq.models.tables import DECODER_TENSORS, POST_NORMS, changed, plus_one

__all__ = ["ARCHITECTURE", "GEMMA_TENSORS", "Gemma"]

GEMMA_TENSORS = plus_one(changed(DECODER_TENSORS, *POST_NORMS, without=("output.weight",)))


def _score_scale(config: Mapping[str, Any]) -> float | None:
    """Return the factor on q.k where it is not the head width's; GGUF says so only for these."""
    scalar = config.get("query_pre_attn_scalar")
    return float(scalar) ** -0.5 if scalar and scalar != config.get("head_dim") else None


class Gemma(Decoder):
    """What Gemma 2 and 3 share: scaled embeddings, GELU, factors that no key holds."""

    rope_kind = "neox"
    wide_layers = 0  # the size whose scores are scaled by the embedding's share of a head
    keys = (
        *DECODER_KEYS,
        *WINDOW_KEYS,
        Key("{arch}.attention.scale", (), "attn_scale", "f32", derive=_score_scale),
        Key("{arch}.attn_logit_softcapping", ("attn_logit_softcapping",), "attn_softcap", "f32"),
        Key("{arch}.final_logit_softcapping", ("final_logit_softcapping",), "final_softcap", "f32"),
    )

    def ignores(self, hf_name: str, hp: HParams) -> bool:
        return super().ignores(hf_name, hp) or hf_name.endswith("lm_head.weight")  # always tied

    def export_config(self, hp: Any) -> dict[str, Any]:
        kinds = {True: "sliding_attention", False: "full_attention"}
        return {
            "hidden_activation": "gelu_pytorch_tanh",
            "query_pre_attn_scalar": round(hp.scale() ** -2),
            "layer_types": [kinds[hp.windowed(i)] for i in range(hp.n_layer)],
        }

    def finish(self, values: dict[str, Any]) -> dict[str, Any]:
        n_embd, n_head = values["n_embd"], values["n_head"]
        made = {"activation": "gelu_tanh", "embedding_scale": float(n_embd) ** 0.5}
        if not values.get("attn_scale") and values["n_layer"] == self.wide_layers:
            made["attn_scale"] = (n_embd / n_head) ** -0.5
        return values | made


class Gemma2(Gemma):
    name = "gemma2"
    hf_classes = ("Gemma2ForCausalLM",)
    hf_model_type = "gemma2"
    window_period = 2
    wide_layers = 46
    config_defaults = {  # noqa: RUF012 - read only
        "head_dim": 256,
        "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "query_pre_attn_scalar": 256,
        "sliding_window": 4096,
        "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0,
    }
    tensors = GEMMA_TENSORS


ARCHITECTURE = Gemma2()
