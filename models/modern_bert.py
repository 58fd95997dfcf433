"""ModernBERT: pre-norm layers without biases, windows to both sides on two of three, gated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ggq.models.encoder import ENCODER_KEYS, Encoder
from ggq.models.hparams import HParams
from ggq.models.layers.attention import Attention, rotation
from ggq.models.layers.base import Layer, Values
from ggq.models.layers.feed_forward import FeedForward
from ggq.models.layers.rope import LOCAL_KEY, Rope
from ggq.models.pooled import classifier_rows
from ggq.models.table import Key, Tensor, norm, rows

__all__ = ["ARCHITECTURE"]

LAYER = "layers.{i}."
PERIOD = 3  # the first of so many layers sees all
GAIN = Tensor("", (), ("embd",), role="norm", f32=True)
LISTED = ("full_attention", "sliding_attention")


def _pattern(config: Mapping[str, Any]) -> list[bool] | int | None:
    """Return which layers have the window: a period whose first layer has none, or a list."""
    given: int | None = config.get("global_attn_every_n_layers")
    kinds = config.get("layer_types")
    if not isinstance(kinds, list):
        return given
    sliding = [kind == "sliding_attention" for kind in kinds]
    period = given or PERIOD
    same = sliding == [i % period != 0 for i in range(len(kinds))]
    return given if same else sliding


class ModernBert(Encoder):
    name = "modern-bert"
    hf_classes = ("ModernBertModel", "ModernBertForMaskedLM", "ModernBertForSequenceClassification")
    hf_model_type = "modernbert"
    hf_prefixes = ("", "model.")
    rope_types = ("default",)
    reads = (
        *Encoder.reads,
        *("local_rope_theta", "global_rope_theta", "layer_types", "global_attn_every_n_layers"),
        *("decoder_bias", "classifier_bias", "sparse_prediction", "sparse_pred_ignore_index"),
        *("deterministic_flash_attn", "reference_compile", "repad_logits_with_grad"),
        "layer_norm_eps",  # a leftover: norm_eps is read
    )
    keys = (
        *(replace(k, hf=("norm_eps",)) if k.attr == "norm_eps" else k for k in ENCODER_KEYS),
        Key("{arch}.attention.sliding_window", ("local_attention",), "window"),
        Key(
            *("{arch}.attention.sliding_window_pattern", (), "window_layers", "bools"),
            derive=_pattern,
            to_hf=lambda value: value,
        ),
        Key("{arch}.rope.freq_base", ("rope_parameters.rope_theta",), "rope_base", "f32"),
        LOCAL_KEY,
        Key("{arch}.vocab_size", ("vocab_size",), "n_vocab"),
        Key("{arch}.hidden_activation", ("hidden_activation",), "act", "str", default="gelu"),
    )
    config_defaults = {  # noqa: RUF012 - read only
        "max_position_embeddings": 8192,
        "norm_eps": 1e-5,
        "local_attention": 128,
        "hidden_activation": "gelu",
    }
    fixed = {  # noqa: RUF012 - read only
        "hidden_activation": ("gelu", "silu"),
        "position_embedding_type": ("rope", "absolute"),  # the latter is a leftover
        "norm_bias": (False,),
        "attention_bias": (False,),
        "mlp_bias": (False,),
        "classifier_activation": ("gelu",),
        "hidden_act": ("gelu", "silu"),
    }
    tensors = (
        Tensor(
            "token_embd.weight",
            ("embeddings.tok_embeddings.weight",),
            ("vocab", "embd"),
            role="token_embd",
        ),
        replace(GAIN, gguf="token_embd_norm.weight", hf=("embeddings.norm.weight",)),
        *norm("attn_norm", f"{LAYER}attn_norm", optional=True),  # the first layer has none
        *rows("attn_qkv", f"{LAYER}attn.Wqkv", ("q+k+v", "embd"), bias=False, input="attn_in"),
        *rows("attn_output", f"{LAYER}attn.Wo", ("embd", "o"), bias=False, input="attn_out"),
        *norm("ffn_norm", f"{LAYER}mlp_norm"),
        *rows("ffn_up", f"{LAYER}mlp.Wi", ("2*ff", "embd"), bias=False, input="ffn_in"),
        *rows("ffn_down", f"{LAYER}mlp.Wo", ("embd", "ff"), bias=False, input="ffn_act"),
        replace(GAIN, gguf="output_norm.weight", hf=("final_norm.weight",)),
    )
    classifier = classifier_rows(("classifier",), ("head.dense",), "head.norm")
    classifier_act = "gelu"

    def config(self, config: Mapping[str, Any]) -> dict[str, Any]:
        flat = super().config(config)
        flat["rope_parameters"] = {
            "rope_theta": flat.get("global_rope_theta") or 160000.0,
            **flat["rope_parameters"],
        }
        local = flat.get("local_rope_theta") or 10000.0
        flat["rope_local"] = {"rope_theta": local, **flat.get("rope_local", {})}
        return flat

    def layer(self, values: Values, i: int) -> Layer:
        rope, window, listed = rotation(values, "neox"), None, values.get("window_layers")
        sliding = listed[i] if isinstance(listed, tuple) else i % (listed or PERIOD) != 0
        if sliding and values.get("window"):
            window = values["window"]
            rope = Rope.local(values, "neox", rope.dims) or rope
        mixer = Attention.of(values, i, rope, window=window, causal=values["causal"], fused=True)
        return Layer(mixer, FeedForward.of(values, i, activation=values["act"], fused=True))

    def forward(self, ops: Any, hp: HParams) -> Any:
        def normed(x: Any, name: str) -> Any:
            return ops.norm(x, f"{name}.weight", hp.norm_eps, kind="layer")

        x = normed(ops.embed("token_embd.weight"), "token_embd_norm")
        for layer in hp.layers:
            first = f"{layer.prefix}attn_norm"
            seen = normed(x, first) if ops.has(f"{first}.weight") else x
            x = ops.add(x, layer.mixer.forward(ops, seen))
            x = ops.add(x, layer.feed.forward(ops, normed(x, f"{layer.prefix}ffn_norm")))
        return normed(ops.gather(x), "output_norm")

    def ignores(self, hf_name: str, hp: HParams) -> bool:
        heads = ("head.", "decoder.", "classifier.")
        return super().ignores(hf_name, hp) or hf_name.startswith(heads)

    def export_config(self, hp: HParams) -> dict[str, Any]:
        mixers = [layer.mixer for layer in hp.layers if isinstance(layer.mixer, Attention)]
        bases = {m.window is not None: m.rope.base for m in mixers if m.rope}
        own = {
            "global_rope_theta": bases.get(False, 160000.0),
            "local_rope_theta": bases.get(True, 10000.0),
        }
        activation = getattr(hp.layers[0].feed, "activation", "gelu")
        kinds = [LISTED[m.window is not None] for m in mixers]
        return (
            super().export_config(hp)
            | own
            | {
                "hidden_activation": activation,
                "layer_types": kinds,
                "mlp_bias": False,
                "attention_bias": False,
            }
        )


ARCHITECTURE = ModernBert()
