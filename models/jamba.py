"""AI21's Jamba: Mamba layers, few attention without positions; experts in every other layer."""

from collections.abc import Mapping
from typing import Any

from ggq.errors import ModelError
from ggq.models import ledger, llama
from ggq.models.base import Architecture
from ggq.models.decoder import DECODER_KEYS, EMBEDDING, FF_NORM, HEAD, MIXER_NORM, VOCAB_KEY
from ggq.models.hparams import HParams
from ggq.models.layers import attention, experts, feed_forward, mamba
from ggq.models.layers.attention import Attention
from ggq.models.layers.base import Layer, Part, Values
from ggq.models.layers.experts import Experts
from ggq.models.layers.feed_forward import FeedForward
from ggq.models.layers.mamba import Mamba
from ggq.models.table import Key, changed, renamed

__all__ = ["ARCHITECTURE"]

NAMES = {
    "mlp.gate.weight": "feed_forward.router.weight",
    "mlp.": "feed_forward.",
    "post_attention_layernorm": "pre_ff_layernorm",
    "model.norm": "model.final_layernorm",
}


def _every(config: Mapping[str, Any], kind: str) -> list[bool]:
    """Return which layers have the part ``kind``: every n-th from one on."""
    period, offset = config[f"{kind}_layer_period"], config[f"{kind}_layer_offset"]
    return [i % period == offset for i in range(config["num_hidden_layers"])]


def _period(flags: list[bool], kind: str) -> dict[str, int]:
    """Return the settings that `_every` makes ``flags`` of; ModelError where none do."""
    places = [i for i, flag in enumerate(flags) if flag] or [len(flags)]
    period = places[1] - places[0] if len(places) > 1 else len(flags) + 1
    made = {f"{kind}_layer_period": period, f"{kind}_layer_offset": places[0] % period}
    if _every({**made, "num_hidden_layers": len(flags)}, kind) != flags:
        raise ModelError(f"jamba: config.json cannot say layers {places} of {len(flags)}")
    return made


def _heads_kv(config: Mapping[str, Any]) -> list[int]:
    """Return the key-value heads of each layer, none in a state space."""
    heads = config.get("num_key_value_heads") or config["num_attention_heads"]
    return [heads if attends else 0 for attends in _every(config, "attn")]


class Jamba(Architecture):
    name = "jamba"
    hf_classes = ("JambaForCausalLM",)
    hf_model_type = "jamba"
    rope_types = ("default",)
    fixed = {"hidden_act": ledger.SILU, "mamba_proj_bias": (False,)}  # noqa: RUF012 - read only
    reads = (
        *("num_key_value_heads", "expert_layer_period", "expert_layer_offset"),
        *("use_mambapy", "use_associative_scan", "num_logits_to_keep"),
    )
    keys = changed(
        (*DECODER_KEYS, VOCAB_KEY, *experts.KEYS, *mamba.KEYS),
        Key(
            "{arch}.attention.head_count_kv", (), "n_head_kv", "u32s", True, None, derive=_heads_kv
        ),
        without=("{arch}.rope.freq_base",),
    )
    config_defaults = {  # noqa: RUF012 - read only
        "max_position_embeddings": 262144,
        "rms_norm_eps": 1e-6,
        "num_key_value_heads": 8,
        "num_experts": 16,
        "num_experts_per_tok": 2,
        "expert_layer_period": 2,
        "expert_layer_offset": 1,
        "attn_layer_period": 8,
        "attn_layer_offset": 4,
        "mamba_d_conv": 4,
        "mamba_d_state": 16,
        "mamba_expand": 2,
    }
    tensors = renamed(
        (
            *(EMBEDDING, *HEAD, *MIXER_NORM, *attention.TENSORS, *mamba.TENSORS),
            *(*FF_NORM, *feed_forward.TENSORS, *experts.EXPERT_TENSORS),
        ),
        NAMES,
    )

    def observe(self, values: Values, source: Any) -> None:
        if isinstance(source, Mapping):
            several = source["num_experts"] > 1
            values["routed"] = tuple(several and e for e in _every(source, "expert"))
        else:
            names = (f"blk.{i}.ffn_gate_inp.weight" for i in range(values["n_layer"]))
            values["routed"] = tuple(name in source.tensors for name in names)

    def layer(self, values: Values, i: int) -> Layer:
        feed: Part = Experts.of(values, i) if values["routed"][i] else FeedForward.of(values, i)
        if values.at("n_head_kv", i, "key-value head counts") == 0:
            return Layer(Mamba.of(values, i), feed)
        return Layer(Attention.of(values, i, None), feed)

    def forward(self, ops: Any, hp: HParams) -> Any:
        return llama.forward(ops, hp)

    def export_config(self, hp: HParams) -> dict[str, Any]:
        space = hp.find(Mamba)
        attends = [layer.find(Attention) for layer in hp.layers]
        made: dict[str, Any] = {
            **_period([part is not None for part in attends], "attn"),
            **_period([layer.find(Experts) is not None for layer in hp.layers], "expert"),
            "num_key_value_heads": max(part.n_head_kv for part in attends if part),
            "num_experts": max(hp.n_expert, 1),
        }
        if space is not None:
            made |= {"mamba_dt_rank": space.step_rank}
            made["mamba_expand"] = space.n_channels // hp.n_embd
        return made


ARCHITECTURE = Jamba()
