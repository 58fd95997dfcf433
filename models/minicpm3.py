"""MiniCPM 3: minicpm's factors around latent attention whose heads' keys and values are made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from ggq.models import granite, ledger
from ggq.models.base import Architecture
from ggq.models.decoder import DECODER_KEYS, EMBEDDING, FF_NORM, HEAD, MIXER_NORM, VOCAB_KEY
from ggq.models.deepseek2 import MAX_EPS
from ggq.models.hparams import HParams
from ggq.models.layers import feed_forward, latent
from ggq.models.layers.attention import widths
from ggq.models.layers.base import Layer, Values
from ggq.models.layers.feed_forward import FeedForward
from ggq.models.layers.latent import LatentAttention
from ggq.models.layers.rope import LONG_AND_SHORT, Rope
from ggq.models.minicpm import MiniCpm, spanning
from ggq.models.table import Key, changed

__all__ = ["ARCHITECTURE", "expanded"]

EMBEDDING_SCALE, DEPTH, BASE_WIDTH = 12, 1.4, 256  # no key says them


def expanded(values: Values, i: int, rope: Rope) -> LatentAttention:
    """Return layer ``i``'s latent attention, of which each head's keys and values are cached."""
    key, value = widths(values)
    given = values.get("head_dim_v")
    value = given or values["n_embd"] // max(values.first("n_head"), 1)
    parts = values.get("latent_q_rank") or 0, values["latent_rank"], key - rope.dims, rope.dims
    n_head, scale = values.at("n_head", i, "head counts"), float(max(key, 1)) ** -0.5
    eps = values["norm_eps"]
    return LatentAttention(n_head, *parts, value, scale, rope, eps, expanded=True, layer=i)


def _value_width(config: Mapping[str, Any]) -> int | None:
    """Return the columns of a value, None where they are a head's share of the embedding."""
    given = config.get("v_head_dim")
    usual: int = config["hidden_size"] // config["num_attention_heads"]
    return None if given in (None, usual) else given


class MiniCpm3(Architecture):
    name = "minicpm3"
    hf_classes = ("MiniCPM3ForCausalLM",)
    hf_model_type = "minicpm3"
    fixed = {  # noqa: RUF012 - read only
        "hidden_act": ledger.SILU,
        "scale_emb": (EMBEDDING_SCALE,),
        "scale_depth": (DEPTH,),
        "dim_model_base": (BASE_WIDTH,),
        "attention_bias": (False,),
    }
    reads = ("v_head_dim", "head_dim", "qk_head_dim")
    rope_types = MiniCpm.rope_types
    peer_factors = LONG_AND_SHORT
    keys = changed(
        (*DECODER_KEYS, VOCAB_KEY, latent.KEYS[0], *latent.EXPANDED_KEYS),
        Key("{arch}.attention.value_length", (), "head_dim_v", derive=_value_width),
        without=(
            "{arch}.rope.scaling.type",
            "{arch}.rope.scaling.original_context_length",
        ),
    )
    config_defaults = MiniCpm.config_defaults | {
        "rms_norm_eps": 1e-5,
        "scale_emb": EMBEDDING_SCALE,
        "scale_depth": DEPTH,
        "dim_model_base": BASE_WIDTH,
        "q_lora_rank": 768,
        "kv_lora_rank": 256,
        "qk_nope_head_dim": 64,
        "qk_rope_head_dim": 32,
    }
    tensors = (
        *(EMBEDDING, *HEAD, *MIXER_NORM, *latent.EXPANDED_TENSORS),
        *(*FF_NORM, *feed_forward.TENSORS),
    )
    vocab = MiniCpm.vocab

    def conflicts(self, config: Mapping[str, Any]) -> Iterator[tuple[str, Any, str]]:
        yield from spanning(config)
        if (eps := config["rms_norm_eps"]) > MAX_EPS:
            yield "rms_norm_eps", eps, "the norms of its latents have 1e-06 whatever it says"

    def layer(self, values: Values, i: int) -> Layer:
        rope = Rope.of(values, "neox", values["rope_dim"])
        rope = replace(rope, long_and_short=LONG_AND_SHORT)
        return Layer(expanded(values, i, rope), FeedForward.of(values, i))

    def complete(self, values: Values) -> None:
        values["embedding_scale"] = float(EMBEDDING_SCALE)
        values["residual_scale"] = DEPTH / values["n_layer"] ** 0.5
        values["logit_scale"] = BASE_WIDTH / values["n_embd"]

    def forward(self, ops: Any, hp: HParams) -> Any:
        return granite.forward(ops, hp)

    def export_config(self, hp: HParams) -> dict[str, Any]:
        mixer = hp.find(LatentAttention)
        assert mixer is not None, "every layer has one"
        return {"qk_nope_head_dim": mixer.nope_dim, "v_head_dim": mixer.v_dim}


ARCHITECTURE = MiniCpm3()
