"""Llama 4's text model: pieces of text with positions, few layers that see all without, mixtures.

The sigmoid that chooses an expert weighs what enters it. Of the smallest ones (MobileLLM-R1) every
layer rotates and sees all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from ggq.models import ledger, llama
from ggq.models.base import Architecture
from ggq.models.decoder import EMBEDDING, FF_NORM, HEAD, LLAMA_KEYS, MIXER_NORM
from ggq.models.hparams import HParams
from ggq.models.layers import attention, experts, feed_forward
from ggq.models.layers.attention import Attention, rotation
from ggq.models.layers.base import Layer, Values
from ggq.models.layers.experts import Experts, expert_rows, shared_rows
from ggq.models.layers.feed_forward import FeedForward
from ggq.models.layers.rope import STILL, STORED, Rope
from ggq.models.table import BLOCK, LAYER, Key, Tensor, changed, renamed

__all__ = ["ARCHITECTURE"]

PERIOD = 4  # every fourth layer has no positions
CHUNK = FLOOR = 8192
UNNORMED = 128  # experts of the model whose queries and keys have no norms: no key says it
MOE = "feed_forward.experts."
STACKS = {
    f"{BLOCK}ffn_gate_exps.weight": ((f"{LAYER}{MOE}gate_up_proj",), "left_columns"),
    f"{BLOCK}ffn_up_exps.weight": ((f"{LAYER}{MOE}gate_up_proj",), "right_columns"),
    f"{BLOCK}ffn_down_exps.weight": ((f"{LAYER}{MOE}down_proj",), "transposed"),
}


def _stacked(table: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Return ``table`` with experts out of the stacks that a checkpoint has, transposed."""
    made: dict[str, dict[str, Any]]
    made = {name: {"hf": hf, "transform": how} for name, (hf, how) in STACKS.items()}
    return tuple(replace(row, **made.get(row.gguf, {})) for row in table)


def _whole(config: Mapping[str, Any]) -> bool:
    """Tell whether every layer rotates and sees all."""
    kinds = config.get("layer_types") or ()
    return bool(kinds) and all(kind == "full_attention" for kind in kinds)


def _mixed(config: Mapping[str, Any]) -> int:
    """Return which layers have experts: every n-th one, none where 0."""
    step = config.get("interleave_moe_layer_step")
    return 0 if not config.get("num_local_experts") else int(1 if step is None else step)


def _used(config: Mapping[str, Any]) -> int:
    """Return the experts that a token goes to, none where there are none."""
    return int(config["num_experts_per_tok"]) if config["num_local_experts"] else 0


class Llama4(Architecture):
    name = "llama4"
    hf_classes = ("Llama4ForCausalLM", "Llama4ForConditionalGeneration")
    hf_model_type = "llama4_text"
    fixed = {  # noqa: RUF012 - read only
        "hidden_act": ledger.SILU,
        "attention_bias": (False,),
        "no_rope_layer_interval": (PERIOD,),
    }
    reads = (
        *("no_rope_layers", "layer_types", "moe_layers", "use_qk_norm", "attn_temperature_tuning"),
        *("for_llm_compressor", "interleave_moe_layer_step", "text_config"),
        "num_experts_per_tok",
    )
    peer_factors = (STORED,)
    keys = changed(
        (*LLAMA_KEYS, *experts.KEYS),
        Key("{arch}.feed_forward_length", ("intermediate_size_mlp",), "n_ff", "u32s", True),
        Key("{arch}.expert_feed_forward_length", ("intermediate_size",), "n_ff_expert"),
        Key("{arch}.expert_used_count", (), "n_expert_used", default=0, derive=_used),
        Key("{arch}.interleave_moe_layer_step", (), "moe_step", default=0, derive=_mixed),
        Key(
            "{arch}.attention.sliding_window",
            (),
            "window",
            derive=lambda config: 0 if _whole(config) else None,
        ),
        Key("{arch}.attention.chunk_size", ("attention_chunk_size",), "chunk", default=CHUNK),
        Key("{arch}.attention.temperature_length", ("floor_scale",), "floor", default=FLOOR),
        Key(
            "{arch}.attention.temperature_scale",
            ("attn_scale",),
            "temperature",
            "f32",
            default=0.1,
        ),
    )
    config_defaults = {  # noqa: RUF012 - read only
        "head_dim": 128,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-5,
        "rope_theta": 500000.0,
        "num_local_experts": 16,
        "num_experts_per_tok": 1,
        "intermediate_size_mlp": 16384,
        "attention_chunk_size": CHUNK,
        "floor_scale": FLOOR,
        "attn_scale": 0.1,
        "use_qk_norm": True,
    }
    tensors = (
        *(EMBEDDING, *HEAD, *MIXER_NORM, *attention.TENSORS, *FF_NORM),
        *renamed(feed_forward.TENSORS, {"mlp.": "feed_forward."}),
        *_stacked(expert_rows(f"{MOE}gate", f"{MOE}up", f"{MOE}down", "feed_forward.router")),
        *shared_rows("feed_forward.shared_expert"),
    )

    def conflicts(self, config: Mapping[str, Any]) -> Iterator[tuple[str, Any, str]]:
        n_layer, whole, step = config["num_hidden_layers"], _whole(config), _mixed(config)
        turns = config.get("no_rope_layers")
        usual = [whole or (i + 1) % PERIOD != 0 for i in range(n_layer)]
        if turns and [bool(n) for n in turns] != usual:
            yield "no_rope_layers", turns, f"every {PERIOD}th layer has no positions here"
        kinds = config.get("layer_types")
        if kinds and not whole and [kind == "chunked_attention" for kind in kinds] != usual:
            yield "layer_types", kinds, "layers with positions see pieces here, or all see all"
        mixed = [i for i in range(n_layer) if step and (i + 1) % step == 0]
        if (given := config.get("moe_layers")) is not None and list(given) != mixed:
            yield "moe_layers", given, f"every {step}th layer has experts here"
        normed = config["num_local_experts"] != UNNORMED
        if bool(config.get("use_qk_norm")) != normed:
            why = f"only the model of {UNNORMED} experts has no norms of queries and keys here"
            yield "use_qk_norm", config.get("use_qk_norm"), why
        if not whole and config.get("attn_temperature_tuning") in (False, 0):
            yield "attn_temperature_tuning", False, "layers without positions have it here"

    def layer(self, values: Values, i: int) -> Layer:
        mixer, step = _attention(values, i), values["moe_step"]
        if not (step and values["n_expert"] and (i + 1) % step == 0):
            return Layer(mixer, FeedForward.of(values, i))
        return Layer(mixer, Experts.of(values, i, gating="sigmoid", weighs_input=True))

    def complete(self, values: Values) -> None:
        values["n_ff_shared"] = values.get("n_ff_expert") or 0
        values["whole"] = values.get("window") == 0
        values["window"] = None

    def forward(self, ops: Any, hp: HParams) -> Any:
        return llama.forward(ops, hp)

    def export_config(self, hp: HParams) -> dict[str, Any]:
        whole = not any(layer.memory.window for layer in hp.layers)
        mixed = [i for i, layer in enumerate(hp.layers) if layer.find(Experts)]
        made: dict[str, Any] = {"moe_layers": mixed, "use_qk_norm": hp.n_expert != UNNORMED}
        if mixed:
            made["interleave_moe_layer_step"] = mixed[0] + 1
        if whole:
            made["layer_types"] = ["full_attention"] * hp.n_layer
            made["no_rope_layers"] = [1] * hp.n_layer
        return made


def _attention(values: Values, i: int) -> Attention:
    """Return layer ``i``'s attention: it rotates and sees a piece, or sees all, ever sharper."""
    rope = rotation(values, "norm")
    norms = "plain" if values["n_expert"] != UNNORMED else None
    if values["whole"]:
        return Attention.of(values, i, rope, norms=norms, rotates_first=True)
    if (i + 1) % PERIOD:
        piece = {"window": values["chunk"], "chunked": True}
        return Attention.of(values, i, rope, norms=norms, rotates_first=True, **piece)
    cool = Rope("norm", rope.dims, rope.base, scaling="linear", factor=STILL)
    spans = {"temperature_length": values["floor"], "temperature_offset": 1}
    return Attention.of(values, i, replace(cool, temperature=values["temperature"], **spans))


ARCHITECTURE = Llama4()
