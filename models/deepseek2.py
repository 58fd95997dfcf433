"""DeepSeek V2 and V3, Kimi K2, GLM-4.7-Flash: latent attention, shared and routed experts."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from ggq.errors import ModelError
from ggq.models.base import HParams, Key, Latent, Tensor
from ggq.models.blocks import Decoder
from ggq.models.keys import DECODER_KEYS, EXPERT_KEYS, changed, scaled
from ggq.models.tables import EXPERT_TENSORS, SHARED_EXPERT

__all__ = ["ARCHITECTURE"]

BLOCK, LAYER = "blk.{i}.", "model.layers.{i}."
GATING = {"softmax": 1, "sigmoid": 2}  # what GGUF calls them
V2 = {"norm_topk_prob": False, "routed_scaling_factor": 1.0, "scoring_func": "softmax"}
V3 = {"norm_topk_prob": True, "routed_scaling_factor": 2.5, "scoring_func": "sigmoid"}
GLM = V3 | {"routed_scaling_factor": 1.8}
BY_CLASS = {
    "DeepseekV2ForCausalLM": V2,
    "DeepseekV3ForCausalLM": V3,
    "Glm4MoeLiteForCausalLM": GLM,
}


def _row(name: str, hf: str, shape: tuple[str, ...], **more: Any) -> Tensor:
    return Tensor(f"{BLOCK}attn_{name}.weight", (f"{LAYER}self_attn.{hf}.weight",), shape, **more)


def _norm(name: str, hf: str, dim: str) -> Tensor:
    return _row(name, hf, (dim,), role="norm", f32=True)


FROM_NORM = {"input": "attn_in", "absorbs": f"{BLOCK}attn_norm.weight"}
DIRECT = (_row("q", "q_proj", ("latent_q", "embd"), role="attn_q", **FROM_NORM),)
LOW_RANK = (
    _row("q_a", "q_a_proj", ("latent_q_rank", "embd"), **FROM_NORM),
    _norm("q_a_norm", "q_a_layernorm", "latent_q_rank"),
    _row(
        "q_b",
        "q_b_proj",
        ("latent_q", "latent_q_rank"),
        input="q_in",
        absorbs=f"{BLOCK}attn_q_a_norm.weight",
    ),
)
LATENT = (
    _row("kv_a_mqa", "kv_a_proj_with_mqa", ("latent_kv", "embd"), **FROM_NORM),
    _norm("kv_a_norm", "kv_a_layernorm", "latent_rank"),
    _row("k_b", "kv_b_proj", ("heads", "latent_rank", "latent_plain"), transform="latent_keys"),
    _row("v_b", "kv_b_proj", ("heads", "latent_value", "latent_rank"), transform="latent_values"),
    _row("output", "o_proj", ("embd", "latent_o"), role="attn_output", input="attn_out"),
)
BIAS = Tensor(
    f"{BLOCK}exp_probs_b.bias",
    (f"{LAYER}mlp.gate.e_score_correction_bias",),
    ("expert",),
    role="bias",
    optional=True,
    f32=True,
    only="experts",
)
SHARED = tuple(
    replace(
        row,
        hf=tuple(n.replace("shared_expert.", "shared_experts.") for n in row.hf),
        only="experts",
    )
    for row in SHARED_EXPERT[1:]
)
USUAL = tuple(f"{BLOCK}attn_{name}." for name in ("q", "k", "v", "output"))
OTHERS = tuple(row for row in EXPERT_TENSORS if not row.gguf.startswith(USUAL))


def _dense(config: Mapping[str, Any]) -> int:
    """Return how many layers at the start have no experts."""
    kinds = config.get("mlp_layer_types")
    if kinds:
        return next((i for i, kind in enumerate(kinds) if kind != "dense"), len(kinds))
    return 0 if config.get("n_routed_experts") else config["num_hidden_layers"]


class Deepseek2(Decoder):
    name = "deepseek2"
    hf_classes = tuple(BY_CLASS)
    hf_model_type = "deepseek_v3"
    exports = False
    config_defaults = {  # noqa: RUF012 - read only
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "qk_rope_head_dim": 64,
        "qk_nope_head_dim": 128,
        "v_head_dim": 128,
        "kv_lora_rank": 512,
        "n_shared_experts": 1,
    }
    keys = changed(
        (*DECODER_KEYS, *EXPERT_KEYS),
        Key("{arch}.vocab_size", ("vocab_size",), "n_vocab"),
        Key("{arch}.attention.head_count_kv", (), "n_head_kv", "u32s", derive=lambda c: 1),
        Key(
            "{arch}.leading_dense_block_count",
            ("first_k_dense_replace",),
            "n_dense",
            default=0,
            derive=_dense,
        ),
        Key("{arch}.attention.q_lora_rank", ("q_lora_rank",), "latent_q_rank", default=0),
        Key("{arch}.attention.kv_lora_rank", ("kv_lora_rank",), "latent_rank", required=True),
        Key(
            "{arch}.attention.key_length",
            (),
            "head_dim",
            required=True,
            derive=lambda c: c["kv_lora_rank"] + c["qk_rope_head_dim"],
        ),
        Key("{arch}.attention.value_length", ("kv_lora_rank",), "head_dim_v", required=True),
        Key(
            "{arch}.attention.key_length_mla",
            (),
            "latent_key",
            required=True,
            derive=lambda c: c["qk_nope_head_dim"] + c["qk_rope_head_dim"],
        ),
        Key("{arch}.attention.value_length_mla", ("v_head_dim",), "latent_value", required=True),
        Key("{arch}.rope.dimension_count", ("qk_rope_head_dim",), "rope_dim", required=True),
        Key("{arch}.expert_shared_count", ("n_shared_experts",), "n_shared", default=0),
        Key("{arch}.expert_weights_scale", ("routed_scaling_factor",), "expert_scale", "f32"),
        Key(
            "{arch}.expert_weights_norm",
            (),
            "expert_normalize",
            "bool",
            derive=lambda c: c["norm_topk_prob"] or None,
        ),
        Key(
            "{arch}.expert_gating_func",
            (),
            "gating_func",
            derive=lambda c: GATING[c["scoring_func"]],
        ),
        Key("{arch}.expert_group_count", ("n_group",), "n_expert_group", default=1),
        Key("{arch}.expert_group_used_count", ("topk_group",), "n_expert_group_used", default=1),
        Key(
            "{arch}.rope.scaling.yarn_log_multiplier",
            attr="yarn_log",
            type="f32",
            derive=lambda c: (scaled("mscale_all_dim", "yarn")(c) or 0.0) / 10 or None,
        ),
        Key("{arch}.nextn_predict_layers", (), "n_nextn", default=0),
    )
    tensors = (*OTHERS, *DIRECT, *LOW_RANK, *LATENT, *SHARED, BIAS)

    def rows(self, hp: HParams) -> Iterator[tuple[str, Tensor, int | None]]:
        unused = DIRECT if hp.latent.q_rank else LOW_RANK
        return (found for found in super().rows(hp) if found[1] not in unused)

    def ignores(self, hf_name: str, hp: HParams) -> bool:
        layer = hf_name.removeprefix("model.").removeprefix("layers.").partition(".")[0]
        further = layer.isdigit() and int(layer) >= hp.n_layer  # layers that predict further tokens
        return super().ignores(hf_name, hp) or further

    def config(self, config: Mapping[str, Any]) -> dict[str, Any]:
        kind = next((c for c in config.get("architectures") or () if c in BY_CLASS), None)
        flat = BY_CLASS.get(kind, V3) | {k: v for k, v in config.items() if v is not None}
        flat = super().config(flat)
        if flat["scoring_func"] not in GATING:
            raise ModelError(f"deepseek2: scoring_func {flat['scoring_func']!r} is not supported")
        if flat.get("topk_method") == "group_limited_greedy" and flat.get("n_group", 1) > 1:
            raise ModelError(
                "deepseek2: topk_method group_limited_greedy, which GGUF cannot express"
            )
        if flat.get("rope_interleave") is False:
            raise ModelError("deepseek2: rope_interleave false is not supported")
        rope = flat["rope_parameters"]
        if rope.get("mscale", 1.0) != rope.get("mscale_all_dim", rope.get("mscale", 1.0)):
            raise ModelError(
                "deepseek2: mscale differs from mscale_all_dim, which GGUF cannot express"
            )
        return flat

    def finish(self, values: dict[str, Any]) -> dict[str, Any]:
        values = dict(values)
        rank, key = values.pop("latent_rank"), values.pop("latent_key")
        turned, rope, log = values["rope_dim"], values["rope"], values.pop("yarn_log", None) or 0.0
        values["latent"] = Latent(
            values.pop("latent_q_rank"), rank, key - turned, turned, values.pop("latent_value")
        )
        scale = max(key, 1) ** -0.5
        if log and rope.scaling == "yarn":  # scores grow, rotations do not
            scale *= (1 + log * math.log(rope.factor)) ** 2
            values["rope"] = replace(rope, log_multiplier=1.0)
        names = {number: name for name, number in GATING.items()}
        values["gating"] = names.get(values.pop("gating_func", None) or 1, "softmax")
        values["n_layer"] -= min(values.pop("n_nextn"), values["n_layer"])
        values["n_ff_shared"] = values.pop("n_shared") * (values.get("n_ff_expert") or 0)
        return values | {"attn_scale": scale}


ARCHITECTURE = Deepseek2()
