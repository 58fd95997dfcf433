"""Gemma 2: windows on every other layer, norms before and after, capped scores and logits."""

from collections.abc import Mapping
from typing import Any

from ggq.models import ledger
from ggq.models.base import Architecture
from ggq.models.decoder import DECODER_KEYS, DECODER_TENSORS, POST_NORMS, logits
from ggq.models.hparams import HParams
from ggq.models.layers.attention import Attention, rotation, window_keys, windowed
from ggq.models.layers.base import Layer, Values
from ggq.models.layers.feed_forward import FeedForward
from ggq.models.layers.linear import rms_norm
from ggq.models.layers.rope import Rope
from ggq.models.table import Key, changed, plus_one

__all__ = ["ARCHITECTURE", "GEMMA_TENSORS", "Gemma", "gemma_keys", "layers"]

GEMMA_TENSORS = plus_one(changed(DECODER_TENSORS, *POST_NORMS, without=("output.weight",)))


def _score_scale(config: Mapping[str, Any]) -> float | None:
    """Return the factor on q.k where it is not the head width's; GGUF says so only for these."""
    scalar = config.get("query_pre_attn_scalar")
    return float(scalar) ** -0.5 if scalar and scalar != config.get("head_dim") else None


def gemma_keys(period: int) -> tuple[Key, ...]:
    """Return the keys of a model in which every ``period``-th layer has no window."""
    return (
        *DECODER_KEYS,
        *window_keys(period),
        Key("{arch}.attention.scale", (), "attn_scale", "f32", derive=_score_scale),
        Key("{arch}.attn_logit_softcapping", ("attn_logit_softcapping",), "attn_softcap", "f32"),
        Key("{arch}.final_logit_softcapping", ("final_logit_softcapping",), "final_softcap", "f32"),
    )


def layers(ops: Any, hp: HParams) -> Any:
    """Return what the layers make of tokens: norms stand before and after each part of one."""

    def normed(x: Any, name: str) -> Any:
        return rms_norm(ops, x, name, hp.norm_eps)

    x = ops.scale(ops.embed("token_embd.weight"), hp.embedding_scale)
    for layer in hp.layers:
        p = layer.prefix
        y = layer.mixer.forward(ops, normed(x, f"{p}attn_norm"))
        x = ops.add(x, normed(y, f"{p}post_attention_norm"))
        y = layer.feed.forward(ops, normed(x, f"{p}ffn_norm"))
        x = ops.add(x, normed(y, f"{p}post_ffw_norm"))
    return x


class Gemma(Architecture):
    """What Gemma 2 and 3 share: scaled embeddings, GELU, factors that no key holds."""

    fixed = {"hidden_activation": ledger.GELU}  # noqa: RUF012 - read only
    reads = ("hidden_act", "layer_types", "sliding_window_pattern")

    period = 0  # every n-th layer has no window
    wide_layers = 0  # the size whose scores are scaled by the embedding's share of a head
    norms: str | None = None
    mutual = False  # whether tokens of a picture see each other
    local_base: float | None = None  # of layers with a window, where neither config nor file says

    def layer(self, values: Values, i: int) -> Layer:
        rope, window = rotation(values, "neox"), None
        if windowed(values, i, self.period):
            window = values["window"]
            local = Rope.local(values, "neox", rope.dims)
            if local is None and self.local_base:
                local = Rope("neox", rope.dims, self.local_base)
            rope = local or rope
        mixer = Attention.of(values, i, rope, window=window, norms=self.norms, mutual=self.mutual)
        return Layer(mixer, FeedForward.of(values, i, activation="gelu_tanh"))

    def forward(self, ops: Any, hp: HParams) -> Any:
        return logits(ops, layers(ops, hp), hp)

    def ignores(self, hf_name: str, hp: HParams) -> bool:
        return super().ignores(hf_name, hp) or hf_name.endswith("lm_head.weight")  # always tied

    def export_config(self, hp: HParams) -> dict[str, Any]:
        mixers = [layer.mixer for layer in hp.layers if isinstance(layer.mixer, Attention)]
        kinds = ["sliding_attention" if m.window else "full_attention" for m in mixers]
        return {
            "hidden_activation": "gelu_pytorch_tanh",
            "query_pre_attn_scalar": round(mixers[0].scale ** -2),
            "layer_types": kinds,
        }

    def complete(self, values: Values) -> None:
        n_embd, n_head = values["n_embd"], values.first("n_head")
        values["embedding_scale"] = float(n_embd) ** 0.5
        if not values.get("attn_scale") and n_head and values["n_layer"] == self.wide_layers:
            values["attn_scale"] = (n_embd / n_head) ** -0.5


class Gemma2(Gemma):
    name = "gemma2"
    hf_classes = ("Gemma2ForCausalLM",)
    hf_model_type = "gemma2"
    period = 2
    wide_layers = 46
    keys = gemma_keys(2)
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
