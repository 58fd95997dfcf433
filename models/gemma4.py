"""Gemma 4: wide heads where a layer sees all, shared keys and values, embeddings in every layer.

The dense models, those with per-layer embeddings (E2B, E4B) and those with experts beside the
feed-forward (26B-A4B) are one architecture.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ggq.models.base import HParams, Key, Tensor, Vocabulary
from ggq.models.blocks import Decoder
from ggq.models.keys import DECODER_KEYS, EXPERT_KEYS, WINDOW_KEYS, changed, scaled
from ggq.models.tables import DECODER_TENSORS, POST_NORMS, QK_NORMS, ROPE_FREQS
from ggq.models.tables import changed as changed_rows

__all__ = ["ARCHITECTURE"]

BLOCK, LAYER = "blk.{i}.", "model.layers.{i}."
PERIOD = 6
OWN = ("attn_k.weight", "attn_v.weight", "attn_k_norm.weight")  # not where they are shared


def _row(name: str, hf: str, shape: tuple[str, ...], role: str = "norm", **more: Any) -> Tensor:
    return Tensor(f"{BLOCK}{name}", (f"{LAYER}{hf}",), shape, role=role, f32=True, **more)


def _norm(name: str, hf: str, **more: Any) -> Tensor:
    return _row(f"{name}.weight", f"{hf}.weight", ("embd",), **more)


def _stack(name: str, hf: str, shape: tuple[str, str], **more: Any) -> Tensor:
    source = (f"{LAYER}experts.{hf}",)
    return Tensor(
        f"{BLOCK}{name}.weight", source, ("expert", *shape), "stack", only="experts", **more
    )


EXPERT_ROWS = (
    Tensor(
        f"{BLOCK}ffn_gate_inp.weight",
        (f"{LAYER}router.proj.weight",),
        ("expert", "embd"),
        role="router",
        input="router_in",
        only="experts",
    ),
    _row("ffn_gate_inp.scale", "router.scale", ("embd",), only="experts"),
    _row("ffn_down_exps.scale", "router.per_expert_scale", ("expert",), only="experts"),
    _norm("pre_ffw_norm_2", "pre_feedforward_layernorm_2", only="experts"),
    _norm("post_ffw_norm_1", "post_feedforward_layernorm_1", only="experts"),
    _norm("post_ffw_norm_2", "post_feedforward_layernorm_2", only="experts"),
    _stack(
        "ffn_gate_up_exps", "gate_up_proj", ("2*ff_expert", "embd"), role="ffn_up", input="exps_in"
    ),
    _stack(
        "ffn_down_exps", "down_proj", ("embd", "ff_expert"), role="ffn_down", input="experts_act"
    ),
)
LAYER_INPUT_ROWS = (
    Tensor(
        "per_layer_token_embd.weight",
        ("model.embed_tokens_per_layer.weight",),
        ("vocab", "embd_layers"),
        role="token_embd",
        optional=True,
    ),
    Tensor(
        "per_layer_model_proj.weight",
        ("model.per_layer_model_projection.weight",),
        ("embd_layers", "embd"),
        optional=True,
    ),
    Tensor(
        "per_layer_proj_norm.weight",
        ("model.per_layer_projection_norm.weight",),
        ("embd_layer",),
        role="norm",
        optional=True,
        f32=True,
    ),
    Tensor(
        f"{BLOCK}inp_gate.weight",
        (f"{LAYER}per_layer_input_gate.weight",),
        ("embd_layer", "embd"),
        input="layer_out",
        optional=True,
    ),
    Tensor(
        f"{BLOCK}proj.weight",
        (f"{LAYER}per_layer_projection.weight",),
        ("embd", "embd_layer"),
        input="layer_act",
        optional=True,
    ),
    _norm("post_norm", "post_per_layer_input_norm", optional=True),
)


def _base_rows() -> tuple[Tensor, ...]:
    rows = changed_rows(DECODER_TENSORS, *POST_NORMS, *QK_NORMS, without=("output.weight",))
    own = tuple(BLOCK + name for name in OWN)
    rows = tuple(replace(r, optional=True) if r.gguf in own else r for r in rows)
    normed = f"{BLOCK}attn_v.weight"  # values are normed: a scale of their rows is lost
    return tuple(replace(r, absorbs=None) if r.absorbs == normed else r for r in rows)


def _layers(config: Mapping[str, Any]) -> list[bool]:
    """Return which layers have the window; the last one never has."""
    kinds, n = config.get("layer_types"), config.get("num_hidden_layers") or 0
    if kinds:
        return [kind == "sliding_attention" for kind in kinds]
    return [(i + 1) % PERIOD != 0 and i + 1 < n for i in range(n)]


def _wide(config: Mapping[str, Any], name: str) -> Any:
    """Return what the layers that see all have for ``name`` in transformers' per-layer settings."""
    wide = [i for i, local in enumerate(_layers(config)) if not local]
    per_layer = config.get("per_layer_config") or {}
    own = per_layer.get(str(wide[0]), per_layer.get(wide[0])) if wide else None
    return own.get(name) if isinstance(own, Mapping) else None


def _head_dim(config: Mapping[str, Any]) -> Any:
    return config.get("global_head_dim") or _wide(config, "head_dim") or 512


def _heads_kv(config: Mapping[str, Any]) -> Any:
    local = config.get("num_key_value_heads")
    given = config.get("num_global_key_value_heads") if config.get("attention_k_eq_v") else None
    wide = given or _wide(config, "num_key_value_heads")
    return [local if windowed else wide for windowed in _layers(config)] if wide else local


def _ff(config: Mapping[str, Any]) -> Any:
    width, n = config.get("intermediate_size"), config.get("num_hidden_layers") or 0
    if not config.get("use_double_wide_mlp") or not isinstance(width, int):
        return width
    own = n - (config.get("num_kv_shared_layers") or 0)
    return [width if i < own else 2 * width for i in range(n)]


def _experts(config: Mapping[str, Any], name: str) -> Any:
    return config.get(name) if config.get("enable_moe_block") else None


class Gemma4(Decoder):
    name = "gemma4"
    hf_classes = ("Gemma4ForCausalLM", "Gemma4ForConditionalGeneration")
    hf_model_type = "gemma4_text"
    rope_kind = "neox"
    window_period = PERIOD
    exports = False
    vocab = Vocabulary(family="gemma4")
    keys = changed(
        (*DECODER_KEYS, *EXPERT_KEYS, *WINDOW_KEYS),
        Key("{arch}.feed_forward_length", (), "n_ff", "u32s", True, derive=_ff),
        Key("{arch}.attention.head_count_kv", (), "n_head_kv", "u32s", derive=_heads_kv),
        Key("{arch}.attention.key_length", (), "head_dim", derive=_head_dim),
        Key("{arch}.attention.value_length", (), "head_dim_v", derive=_head_dim),
        Key("{arch}.attention.key_length_swa", ("head_dim",), "head_dim_local"),
        Key("{arch}.attention.value_length_swa", ("head_dim",)),
        Key("{arch}.attention.shared_kv_layers", ("num_kv_shared_layers",), "n_shared_kv"),
        Key(
            "{arch}.attention.sliding_window_pattern", (), "window_layers", "bools", derive=_layers
        ),
        Key(
            "{arch}.embedding_length_per_layer_input",
            ("hidden_size_per_layer_input",),
            "n_embd_layer",
            derive=lambda config: 0,
        ),
        Key("{arch}.rope.dimension_count", (), "rope_dim", derive=_head_dim),
        Key("{arch}.rope.dimension_count_swa", ("head_dim",), "rope_local_dims"),
        Key("{arch}.rope.scaling.factor", (), "rope_factor", "f32", derive=scaled("factor")),
        Key("{arch}.final_logit_softcapping", ("final_logit_softcapping",), "final_softcap", "f32"),
        Key(
            "{arch}.expert_count",
            (),
            "n_expert",
            default=0,
            derive=lambda config: _experts(config, "num_experts"),
        ),
        Key(
            "{arch}.expert_used_count",
            (),
            "n_expert_used",
            default=0,
            derive=lambda config: _experts(config, "top_k_experts"),
        ),
        Key(
            "{arch}.expert_feed_forward_length",
            (),
            "n_ff_expert",
            derive=lambda config: _experts(config, "moe_intermediate_size"),
        ),
    )
    config_defaults = {  # noqa: RUF012 - read only
        "head_dim": 256,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-6,
        "sliding_window": 512,
        "num_kv_shared_layers": 0,
    }
    tensors = (
        *_base_rows(),
        replace(ROPE_FREQS, transform="proportional_factors"),
        _row("layer_output_scale.weight", "layer_scalar", ("1",), "other", optional=True),
        *LAYER_INPUT_ROWS,
        *EXPERT_ROWS,
    )

    def config(self, config: Mapping[str, Any]) -> dict[str, Any]:
        flat = super().config(config)
        rope = flat["rope_parameters"]
        flat["rope_parameters"] = {"rope_theta": 1e6, "partial_rotary_factor": 0.25, **rope}
        flat["rope_local"] = {"rope_theta": 1e4, **flat.get("rope_local", {})}
        return flat

    def ignores(self, hf_name: str, hp: HParams) -> bool:
        return super().ignores(hf_name, hp) or hf_name.endswith("lm_head.weight")  # always tied

    def finish(self, values: dict[str, Any]) -> dict[str, Any]:
        made = {"activation": "gelu_tanh", "attn_scale": 1.0, "value_norm": True}
        made["embedding_scale"] = float(values["n_embd"]) ** 0.5
        return values | made | {"expert_normalize": True}


ARCHITECTURE = Gemma4()
