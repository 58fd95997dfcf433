"""Gemma 3n (E2B, E4B): alternating updates, sparse gates, embeddings in every layer.

The last layers read the keys and values of the last own ones of their kind.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from statistics import NormalDist
from typing import Any

from ggq.models import ledger
from ggq.models.base import Architecture
from ggq.models.decoder import DECODER_KEYS, DECODER_TENSORS, POST_NORMS, logits
from ggq.models.hparams import HParams
from ggq.models.layers import altup, attention, laurel, per_layer_input
from ggq.models.layers.altup import AltUp
from ggq.models.layers.attention import Attention, rotation, window_keys, windowed
from ggq.models.layers.base import Layer, Values
from ggq.models.layers.feed_forward import FeedForward
from ggq.models.layers.laurel import Laurel
from ggq.models.layers.linear import rms_norm
from ggq.models.layers.per_layer_input import PerLayerInput
from ggq.models.layers.rope import Rope
from ggq.models.table import BLOCK, Key, absorbed_by, changed

__all__ = ["ARCHITECTURE"]

PERIOD = 5
ACTIVATION = "gelu_tanh"
RANK = 64  # of Laurel: no key says it
CAP = 30.0  # of the logits, where a file does not say it
OWN = ("attn_k.weight", "attn_v.weight", "attn_k_norm.weight")  # not where they are shared


def forward(ops: Any, hp: HParams) -> Any:
    """Return the logits: each layer works on the first of several streams."""

    def normed(x: Any, name: str) -> Any:
        return rms_norm(ops, x, name, hp.norm_eps)

    x = ops.scale(ops.embed("token_embd.weight"), hp.embedding_scale)
    first, streams = hp.find(PerLayerInput), hp.find(AltUp)
    assert first is not None and streams is not None
    embedded, states = first.embed(ops, x), streams.open(ops, x)
    for layer in hp.layers:
        p, up, beside = layer.prefix, layer.find(AltUp), layer.find(Laurel)
        own = layer.find(PerLayerInput)
        assert up is not None and beside is not None and own is not None
        predicted = up.predict(ops, states)
        seen = normed(predicted[0], f"{p}attn_norm")
        y = normed(layer.mixer.forward(ops, seen), f"{p}post_attention_norm")
        x = ops.add(ops.add(predicted[0], y), beside.forward(ops, seen))
        x = ops.scale(x, 0.5**0.5)
        y = layer.feed.forward(ops, normed(x, f"{p}ffn_norm"))
        x = ops.add(x, normed(y, f"{p}post_ffw_norm"))
        states = up.correct(ops, predicted, x)
        y = own.forward(ops, ops.gain(states[0], f"{p}altup_correct_scale.weight"), embedded)
        states = [states[0], *(ops.add(state, y) for state in states[1:])]
    return logits(ops, streams.close(ops, states), hp)


def _windowed_layers(config: Mapping[str, Any]) -> list[bool]:
    kinds, n = config.get("layer_types"), config.get("num_hidden_layers") or 0
    if kinds:
        return [kind == "sliding_attention" for kind in kinds]
    return [(i + 1) % PERIOD != 0 for i in range(n)]


def _multipliers(config: Mapping[str, Any]) -> list[float]:
    """Return how many deviations above their mean a layer's gates must lie; -inf: all stay."""
    shares, n = config.get("activation_sparsity_pattern"), config.get("num_hidden_layers") or 0
    if shares is None:
        sparse = 10 if n > 10 else 0  # transformers' default
        shares = [0.95] * sparse + [0.0] * (n - sparse)
    shares = shares if isinstance(shares, (list, tuple)) else [shares] * n
    return [NormalDist().inv_cdf(s) if s > 0 else float("-inf") for s in shares]


def _tensors() -> tuple[Any, ...]:
    usual = (*POST_NORMS, *attention.QK_NORMS)
    found = changed(DECODER_TENSORS, *usual, without=("output.weight",))
    own = tuple(BLOCK + name for name in OWN)
    found = tuple(replace(r, optional=True) if r.gguf in own else r for r in found)
    # values are normed; what the first norm gives also goes to the low-rank map
    return absorbed_by(found, {"attn_v": None, "attn_norm": None})


class Gemma3n(Architecture):
    name = "gemma3n"
    hf_classes = ("Gemma3nForCausalLM", "Gemma3nForConditionalGeneration")
    hf_model_type = "gemma3n_text"
    exports = False  # rows of shared keys and values, and what files fix in code
    fixed = {  # noqa: RUF012 - read only
        "hidden_activation": ledger.GELU,
        "altup_num_inputs": (4,),
        "altup_active_idx": (0,),
        "altup_correct_scale": (True,),
        "laurel_rank": (RANK,),
        "final_logit_softcapping": (CAP,),  # llama.cpp reads no other
    }
    reads = ("hidden_act", "altup_coef_clip", "activation_sparsity_pattern")
    keys = changed(
        (*DECODER_KEYS, *window_keys(PERIOD, _windowed_layers)),
        per_layer_input.KEY,
        Key("{arch}.altup.active_idx", ("altup_active_idx",)),
        Key("{arch}.altup.num_inputs", ("altup_num_inputs",), "n_streams", default=4),
        Key("{arch}.attention.shared_kv_layers", ("num_kv_shared_layers",), "n_shared_kv"),
        Key("{arch}.activation_sparsity_scale", (), "sparsity", "reals", derive=_multipliers),
        Key("{arch}.final_logit_softcapping", ("final_logit_softcapping",), "final_softcap", "f32"),
    )
    config_defaults = {  # noqa: RUF012 - read only
        "hidden_size": 2048,
        "intermediate_size": 16384,
        "num_hidden_layers": 35,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "head_dim": 256,
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0,
        "sliding_window": 512,
        "hidden_size_per_layer_input": 256,
        "num_kv_shared_layers": 15,
        "altup_num_inputs": 4,
        "altup_active_idx": 0,
        "final_logit_softcapping": CAP,
    }
    rope_types = ("default", "linear")
    tensors = (
        *_tensors(),
        *(
            replace(r, transform="first_beyond") if r.gguf == "per_layer_token_embd.weight" else r
            for r in per_layer_input.TENSORS
        ),
        *altup.TENSORS,
        *laurel.TENSORS,
    )

    def layer(self, values: Values, i: int) -> Layer:
        eps, n_embd = values["norm_eps"], values["n_embd"]
        sparsity = values.at("sparsity", i, "sparsities")
        sparsity = None if sparsity is None or sparsity == float("-inf") else sparsity
        feed = FeedForward.of(values, i, activation=ACTIVATION, sparsity=sparsity)
        sizes = values["n_embd_layer"], n_embd, values["n_layer"]
        others = (
            AltUp(values["n_streams"], n_embd, eps, layer=i),
            Laurel(RANK, eps, layer=i),
            PerLayerInput(*sizes, ACTIVATION, eps, layer=i),
        )
        return Layer(_attention(values, i), feed, others)

    def forward(self, ops: Any, hp: HParams) -> Any:
        return forward(ops, hp)

    def config(self, config: Mapping[str, Any]) -> dict[str, Any]:
        flat = super().config(config)
        local = flat.get("rope_local_base_freq", 10000.0)
        flat["rope_local"] = {"rope_theta": local, **flat.get("rope_local", {})}
        return flat

    def ignores(self, hf_name: str, hp: HParams) -> bool:
        return super().ignores(hf_name, hp) or hf_name.endswith("lm_head.weight")  # always tied

    def complete(self, values: Values) -> None:
        values["embedding_scale"] = float(values["n_embd"]) ** 0.5
        values["final_softcap"] = values.get("final_softcap") or CAP


def _attention(values: Values, i: int) -> Attention:
    """Return layer ``i``'s attention: with a window and a base of its own, or neither."""
    rope, local = rotation(values, "neox"), windowed(values, i, PERIOD)
    own: dict[str, Any] = {"window": values["window"] if local else None}
    if local:
        rope = Rope.local(values, "neox", rope.dims) or rope
    n_own = values["n_layer"] - (values.get("n_shared_kv") or 0)
    if i >= n_own:  # the last own ones of the same kind
        alike = [j for j in range(n_own) if windowed(values, j, PERIOD) == local]
        own["owner"] = alike[-1] if alike else None
    return Attention.of(values, i, rope, scale=1.0, norms="head", value_norm=True, **own)


ARCHITECTURE = Gemma3n()
