"""DeepSeek V2 and V3, Kimi K2, GLM-4.7-Flash: latent attention, shared and routed experts."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from ggq.errors import ModelError
from ggq.models import llama
from ggq.models.base import Architecture
from ggq.models.decoder import DECODER_KEYS, EMBEDDING, FF_NORM, HEAD, MIXER_NORM, VOCAB_KEY
from ggq.models.hparams import HParams
from ggq.models.layers import experts, feed_forward, latent
from ggq.models.layers.base import Layer, Values
from ggq.models.layers.experts import GATING, Experts, router_bias, shared_rows
from ggq.models.layers.feed_forward import FeedForward
from ggq.models.layers.latent import LatentAttention
from ggq.models.layers.rope import Rope, scaled, stored_magnitude
from ggq.models.table import Key, changed

__all__ = ["ARCHITECTURE"]

V2 = {"norm_topk_prob": False, "routed_scaling_factor": 1.0, "scoring_func": "softmax"}
V3 = {"norm_topk_prob": True, "routed_scaling_factor": 2.5, "scoring_func": "sigmoid"}
GLM = V3 | {"routed_scaling_factor": 1.8}
MAX_EPS = 1e-5  # the latents' norms have 1e-6 in transformers: up to here it makes no difference
BY_CLASS = {
    "DeepseekV2ForCausalLM": V2,
    "DeepseekV3ForCausalLM": V3,
    "Glm4MoeLiteForCausalLM": GLM,
}


def _dense(config: Mapping[str, Any]) -> int:
    """Return how many layers at the start have no experts."""
    kinds = config.get("mlp_layer_types")
    if kinds:
        return next((i for i, kind in enumerate(kinds) if kind != "dense"), len(kinds))
    return 0 if config.get("n_routed_experts") else int(config["num_hidden_layers"])


class Deepseek2(Architecture):
    name = "deepseek2"
    hf_classes = tuple(BY_CLASS)
    hf_model_type = "deepseek_v3"
    reads = (
        *("head_dim", "num_key_value_heads", "qk_head_dim", "topk_method", "rope_interleave"),
        *("mlp_layer_types", "moe_layer_freq", "norm_topk_prob", "scoring_func"),
    )

    def conflicts(self, config: Mapping[str, Any]) -> Iterator[tuple[str, Any, str]]:
        """Yield what transformers and GGUF's readers would each do in another way."""
        groups = config.get("n_group") or 1
        if groups > 1 and config.get("topk_method") == "greedy":
            yield "n_group", groups, "groups are not chosen under topk_method greedy"
        else:
            yield from experts.misfit_groups(config, config.get("n_routed_experts"))
        if config["norm_topk_prob"] and "DeepseekV2ForCausalLM" in config.get("architectures", ()):
            yield "norm_topk_prob", True, "DeepSeek-V2's weights of experts are not normalized"
        if (eps := config["rms_norm_eps"]) > MAX_EPS:
            yield "rms_norm_eps", eps, "the norms of its latents have 1e-06 whatever it says"
        if config.get("moe_layer_freq") not in (None, 1):
            yield "moe_layer_freq", config["moe_layer_freq"], "experts in some layers only"
        rope = config["rope_parameters"]
        if (magnitude := rope.get("attention_factor")) is not None:
            yield "rope_parameters.attention_factor", magnitude, "mscale_all_dim is used instead"
        if rope.get("mscale_all_dim") and rope.get("rope_type") not in (None, "default", "yarn"):
            yield "rope_parameters.mscale_all_dim", rope["mscale_all_dim"], "only yarn has a key"

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
        (*DECODER_KEYS, *experts.KEYS),
        VOCAB_KEY,
        Key("{arch}.attention.head_count_kv", (), "n_head_kv", "u32s", derive=lambda c: 1),
        Key(
            "{arch}.leading_dense_block_count",
            ("first_k_dense_replace",),
            "n_dense",
            default=0,
            derive=_dense,
        ),
        *latent.KEYS,
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
        Key(
            "{arch}.rope.scaling.attn_factor",
            (),
            "rope_attn_factor",
            "f32",
            derive=stored_magnitude,
        ),
        Key("{arch}.nextn_predict_layers", (), "n_nextn", default=0),
    )
    tensors = (
        EMBEDDING,
        *HEAD,
        *MIXER_NORM,
        *latent.TENSORS,
        *FF_NORM,
        *feed_forward.TENSORS,
        *experts.EXPERT_TENSORS,
        *shared_rows("mlp.shared_experts"),
        router_bias("mlp.gate.e_score_correction_bias"),
    )

    def layer(self, values: Values, i: int) -> Layer:
        if i < values["n_dense"] or not values["n_expert"]:
            return Layer(_attention(values, i), FeedForward.of(values, i))
        return Layer(_attention(values, i), Experts.of(values, i))

    def forward(self, ops: Any, hp: HParams) -> Any:
        return llama.forward(ops, hp)

    def ignores(self, hf_name: str, hp: HParams) -> bool:
        layer = hf_name.removeprefix("model.").removeprefix("layers.").partition(".")[0]
        further = layer.isdigit() and int(layer) >= hp.n_layer  # layers that predict further tokens
        return super().ignores(hf_name, hp) or further

    def config(self, config: Mapping[str, Any]) -> dict[str, Any]:
        kind = next((c for c in config.get("architectures") or () if c in BY_CLASS), "")
        given = {k: v for k, v in config.items() if v is not None}
        flat = super().config({**BY_CLASS.get(kind, V3), **given})
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

    def export_config(self, hp: HParams) -> dict[str, Any]:
        mixer, feed = hp.find(LatentAttention), hp.find(Experts)
        assert mixer is not None, "every layer has one"
        old = feed is None or (feed.routing.gating == "softmax" and not feed.routing.normalize)
        if old and feed is not None and feed.routing.n_group > 1:
            raise ModelError("deepseek2: writing groups of experts under softmax is not supported")
        made: dict[str, Any] = {
            "architectures": [f"DeepseekV{2 if old else 3}ForCausalLM"],
            "model_type": f"deepseek_v{2 if old else 3}",
            "num_key_value_heads": mixer.n_head,
            "q_lora_rank": mixer.q_rank or None,
            "qk_nope_head_dim": mixer.nope_dim,
            "topk_method": "greedy" if old else "noaux_tc",
            "n_routed_experts": hp.n_expert or None,
            "num_local_experts": None,
        }
        if feed is not None:
            made |= {"norm_topk_prob": feed.routing.normalize, "scoring_func": feed.routing.gating}
        if mixer.rope.scaling == "yarn":
            made["rope_scaling"] = _settings(mixer)
        return made

    def complete(self, values: Values) -> None:
        names = {number: name for name, number in GATING.items()}
        values["gating"] = names.get(values.get("gating_func") or 1, "softmax")
        values["n_ff_shared"] = values["n_shared"] * (values.get("n_ff_expert") or 0)


def _settings(mixer: LatentAttention) -> dict[str, Any]:
    """Return rope_scaling: the growth of scores is there as mscale, which `_attention` has used."""
    growth = math.sqrt(mixer.scale * math.sqrt(mixer.nope_dim + mixer.rope_dim)) - 1
    log = round(10 * growth / math.log(mixer.rope.factor), 6) if mixer.rope.factor > 1 else 0.0
    settings = replace(mixer.rope, attn_factor=1.0).settings()
    return settings | ({"mscale": log, "mscale_all_dim": log} if log else {})


def _attention(values: Values, i: int) -> LatentAttention:
    """Return layer ``i``'s attention; ModelError where the cached heads are not of its parts."""
    key, rope_dim = values["latent_key"], values["rope_dim"]
    rank, log = values["latent_rank"], values.get("yarn_log") or 0.0
    rope = Rope.of(values, "norm", rope_dim)
    scale = float(max(key, 1)) ** -0.5
    if log and rope.scaling == "yarn":  # scores grow, rotations do not
        scale *= (1 + log * math.log(rope.factor)) ** 2
        rope = replace(rope, log_multiplier=1.0)
    parts = values["latent_q_rank"], rank, key - rope_dim, rope_dim, values["latent_value"]
    if (values["head_dim"], values["head_dim_v"]) != (rank + rope_dim, rank):
        what = f"cached heads of {values['head_dim']} columns for parts of {parts[1:]}"
        raise ModelError(f"{values.arch}: {what}")
    n_head = values.at("n_head", i, "head counts")
    return LatentAttention(n_head, *parts, scale, rope, values["norm_eps"], layer=i)


ARCHITECTURE = Deepseek2()
