"""Gemma 4: wide heads where a layer sees all, shared keys and values, embeddings in every layer.

The dense models, those with per-layer embeddings (E2B, E4B) and those with experts beside the
feed-forward (26B-A4B) are one architecture.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ggq.models import ledger
from ggq.models.base import Architecture
from ggq.models.decoder import DECODER_KEYS, DECODER_TENSORS, POST_NORMS, logits
from ggq.models.hparams import HParams
from ggq.models.layers import attention, experts, per_layer_input, rope
from ggq.models.layers.attention import Attention, rotation, widths, window_keys, windowed
from ggq.models.layers.base import Layer, Part, Values
from ggq.models.layers.experts import Experts
from ggq.models.layers.feed_forward import FeedForward
from ggq.models.layers.linear import rms_norm
from ggq.models.layers.per_layer_input import PerLayerInput
from ggq.models.layers.rope import Rope, scaled
from ggq.models.table import BLOCK, LAYER, Key, Tensor, absorbed_by, changed, norm, rows
from ggq.models.vocabulary import Vocabulary

__all__ = ["ARCHITECTURE"]

PERIOD = 6
ACTIVATION = "gelu_tanh"
OWN = ("attn_k.weight", "attn_v.weight", "attn_k_norm.weight")  # not where they are shared


def forward(ops: Any, hp: HParams) -> Any:
    """Return the logits: four norms a layer, experts beside the network, the layer's own input."""

    def normed(x: Any, name: str) -> Any:
        return rms_norm(ops, x, name, hp.norm_eps)

    x = ops.scale(ops.embed("token_embd.weight"), hp.embedding_scale)
    first = hp.find(PerLayerInput)
    embedded = first.embed(ops, x) if first else None
    for layer in hp.layers:
        p, beside, own = layer.prefix, layer.find(Experts), layer.find(PerLayerInput)
        y = layer.mixer.forward(ops, normed(x, f"{p}attn_norm"))
        x = ops.add(x, normed(y, f"{p}post_attention_norm"))
        y = layer.feed.forward(ops, normed(x, f"{p}ffn_norm"))
        if beside:
            y = ops.add(normed(y, f"{p}post_ffw_norm_1"), _mixed(ops, x, hp, beside))
        x = ops.add(x, normed(y, f"{p}post_ffw_norm"))
        x = ops.add(x, own.forward(ops, x, embedded)) if own else x
        scale = f"{p}layer_output_scale.weight"
        x = ops.scale(x, ops.number(scale)) if ops.has(scale) else x
    return logits(ops, x, hp)


def _mixed(ops: Any, x: Any, hp: HParams, experts: Experts) -> Any:
    """Return what the experts make of ``x``; the router sees it under a norm of its own."""
    p = f"blk.{experts.layer}."
    seen = ops.norm(x, f"{p}ffn_gate_inp.scale", hp.norm_eps, kind="rms")
    seen = ops.scale(seen, float(hp.n_embd) ** -0.5)
    y = experts.forward(ops, rms_norm(ops, x, f"{p}pre_ffw_norm_2", hp.norm_eps), seen)
    return rms_norm(ops, y, f"{p}post_ffw_norm_2", hp.norm_eps)


def _vector(name: str, hf: str, dim: str, **more: Any) -> Tensor:
    return Tensor(f"{BLOCK}{name}", (f"{LAYER}{hf}",), (dim,), f32=True, **more)


def _stack(name: str, hf: str, shape: tuple[str, str], **more: Any) -> Tensor:
    source, full = (f"{LAYER}experts.{hf}",), ("expert", *shape)
    return Tensor(f"{BLOCK}{name}.weight", source, full, "stack", part=Experts, **more)


EXPERT_TENSORS = (
    *rows(
        "ffn_gate_inp",
        "router.proj",
        ("expert", "embd"),
        bias=False,
        role="router",
        input="router_in",
        part=Experts,
    ),
    _vector("ffn_gate_inp.scale", "router.scale", "embd", role="norm", part=Experts),
    _vector("ffn_down_exps.scale", "router.per_expert_scale", "expert", part=Experts),
    *norm("pre_ffw_norm_2", "pre_feedforward_layernorm_2", part=Experts),
    *norm("post_ffw_norm_1", "post_feedforward_layernorm_1", part=Experts),
    *norm("post_ffw_norm_2", "post_feedforward_layernorm_2", part=Experts),
    _stack(
        "ffn_gate_up_exps",
        "gate_up_proj",
        ("2*ff_expert", "embd"),
        role="ffn_gate",
        input="exps_in",
    ),
    _stack(
        "ffn_down_exps", "down_proj", ("embd", "ff_expert"), role="ffn_down", input="experts_act"
    ),
)


def _tensors() -> tuple[Tensor, ...]:
    usual = (*POST_NORMS, *attention.QK_NORMS)
    found = changed(DECODER_TENSORS, *usual, without=("output.weight",))
    own = tuple(BLOCK + name for name in OWN)
    found = tuple(replace(r, optional=True) if r.gguf in own else r for r in found)
    return absorbed_by(found, {"attn_v": None})  # values are normed: a scale of their rows is lost


def _windowed_layers(config: Mapping[str, Any]) -> list[bool]:
    """Return which layers have the window; the last one never has."""
    kinds, n = config.get("layer_types"), config.get("num_hidden_layers") or 0
    if kinds:
        return [kind == "sliding_attention" for kind in kinds]
    return [(i + 1) % PERIOD != 0 and i + 1 < n for i in range(n)]


def _wide(config: Mapping[str, Any], name: str) -> Any:
    """Return what the layers that see all have for ``name`` in transformers' per-layer settings."""
    wide = [i for i, local in enumerate(_windowed_layers(config)) if not local]
    per_layer = config.get("per_layer_config") or {}
    own = per_layer.get(str(wide[0]), per_layer.get(wide[0])) if wide else None
    return own.get(name) if isinstance(own, Mapping) else None


def _head_dim(config: Mapping[str, Any]) -> Any:
    usual = config.get("head_dim") if "per_layer_config" in config else 512
    return config.get("global_head_dim") or _wide(config, "head_dim") or usual


def _heads_kv(config: Mapping[str, Any]) -> Any:
    local = config.get("num_key_value_heads")
    given = config.get("num_global_key_value_heads") if config.get("attention_k_eq_v") else None
    wide = given or _wide(config, "num_key_value_heads")
    return [local if windowed else wide for windowed in _windowed_layers(config)] if wide else local


def _ff(config: Mapping[str, Any]) -> Any:
    width, n = config.get("intermediate_size"), config.get("num_hidden_layers") or 0
    if not config.get("use_double_wide_mlp") or not isinstance(width, int):
        return width
    own = n - (config.get("num_kv_shared_layers") or 0)
    return [width if i < own else 2 * width for i in range(n)]


def _expert_key(name: str, hf: str, attr: str, **more: Any) -> Key:
    def given(config: Mapping[str, Any]) -> Any:
        return config.get(hf) if config.get("enable_moe_block") else None

    return Key(f"{{arch}}.{name}", (), attr, derive=given, **more)


class Gemma4(Architecture):
    name = "gemma4"
    hf_classes = ("Gemma4ForCausalLM", "Gemma4ForConditionalGeneration")
    hf_model_type = "gemma4_text"
    fixed = {  # noqa: RUF012 - read only
        "hidden_activation": ledger.GELU,
        "use_bidirectional_attention": ("vision", False),  # of images only
    }
    reads = ("hidden_act", "num_experts", "top_k_experts", "moe_intermediate_size")
    rope_types = ("proportional",)
    rope_reads = ("partial_rotary_factor",)
    peer_factors = (rope.STORED,)
    vocab = Vocabulary(family="gemma4")
    keys = changed(
        (*DECODER_KEYS, *experts.KEYS, *window_keys(PERIOD, _windowed_layers)),
        Key("{arch}.feed_forward_length", (), "n_ff", "u32s", True, derive=_ff),
        Key("{arch}.attention.head_count_kv", (), "n_head_kv", "u32s", derive=_heads_kv),
        Key("{arch}.attention.key_length", (), "head_dim", derive=_head_dim),
        Key("{arch}.attention.value_length", (), "head_dim_v", derive=_head_dim),
        Key("{arch}.attention.key_length_swa", ("head_dim",), "head_dim_local"),
        Key("{arch}.attention.value_length_swa", ("head_dim",)),
        Key("{arch}.attention.shared_kv_layers", ("num_kv_shared_layers",), "n_shared_kv"),
        per_layer_input.KEY,
        Key("{arch}.rope.dimension_count", (), "rope_dim", derive=_head_dim),
        Key("{arch}.rope.dimension_count_swa", ("head_dim",), "rope_local_dims"),
        Key("{arch}.rope.scaling.factor", (), "rope_factor", "f32", derive=scaled("factor")),
        Key("{arch}.final_logit_softcapping", ("final_logit_softcapping",), "final_softcap", "f32"),
        _expert_key("expert_count", "num_experts", "n_expert", default=0),
        _expert_key("expert_used_count", "top_k_experts", "n_expert_used", default=0),
        _expert_key("expert_feed_forward_length", "moe_intermediate_size", "n_ff_expert"),
    )
    config_defaults = {  # noqa: RUF012 - read only
        "head_dim": 256,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-6,
        "sliding_window": 512,
        "num_kv_shared_layers": 0,
    }
    tensors = (
        *_tensors(),
        replace(rope.FACTORS[0], transform="rope_proportional"),
        _vector("layer_output_scale.weight", "layer_scalar", "1", optional=True),
        *per_layer_input.TENSORS,
        *EXPERT_TENSORS,
    )

    def layer(self, values: Values, i: int) -> Layer:
        eps, others = values["norm_eps"], list[Part]()
        if values["n_expert"]:
            scales = f"blk.{i}.ffn_down_exps.scale"
            own = {"normalize": True, "scales": scales, "bias": None, "fused": True}
            others.append(Experts.of(values, i, activation=ACTIVATION, **own))
        if n := values.get("n_embd_layer"):
            sizes = n, values["n_embd"], values["n_layer"]
            others.append(PerLayerInput(*sizes, ACTIVATION, eps, layer=i))
        feed = FeedForward.of(values, i, activation=ACTIVATION)
        return Layer(_attention(values, i), feed, tuple(others))

    def forward(self, ops: Any, hp: HParams) -> Any:
        return forward(ops, hp)

    def config(self, config: Mapping[str, Any]) -> dict[str, Any]:
        flat = super().config(config)
        rope = flat["rope_parameters"]
        flat["rope_parameters"] = {"rope_theta": 1e6, "partial_rotary_factor": 0.25, **rope}
        flat["rope_local"] = {"rope_theta": 1e4, **flat.get("rope_local", {})}
        return flat

    def ignores(self, hf_name: str, hp: HParams) -> bool:
        return super().ignores(hf_name, hp) or hf_name.endswith("lm_head.weight")  # always tied

    def export_config(self, hp: HParams) -> dict[str, Any]:
        mixers = [layer.mixer for layer in hp.layers if isinstance(layer.mixer, Attention)]
        wide = next(m for m in mixers if m.window is None)
        local = next((m for m in mixers if m.window is not None), wide)
        assert wide.rope is not None and local.rope is not None
        feeds, own = [layer.find(FeedForward) for layer in hp.layers], hp.find(PerLayerInput)
        kinds = ["full_attention" if m.window is None else "sliding_attention" for m in mixers]
        turns = {"full_attention": ("proportional", wide), "sliding_attention": ("default", local)}
        made: dict[str, Any] = {
            "layer_types": kinds,
            "head_dim": local.head_dim,
            "global_head_dim": wide.head_dim,
            "num_key_value_heads": local.n_head_kv,
            "intermediate_size": feeds[0].n_ff if feeds[0] else None,
            "use_double_wide_mlp": len({feed.n_ff for feed in feeds if feed}) > 1,
            "num_kv_shared_layers": sum(m.owner is not None for m in mixers),
            "hidden_size_per_layer_input": own.n_embd_layer if own else 0,
            "vocab_size_per_layer_input": hp.n_vocab,
            "hidden_activation": "gelu_pytorch_tanh",
            "rope_parameters": {
                name: {"rope_type": kind, "rope_theta": m.rope.base}
                for name, (kind, m) in turns.items()
                if m.rope
            },
        }
        if wide.n_head_kv != local.n_head_kv:  # which only those without values of their own have
            made |= {"num_global_key_value_heads": wide.n_head_kv, "attention_k_eq_v": True}
        if mixed := hp.find(Experts):
            made |= {"enable_moe_block": True, "num_experts": mixed.routing.n_expert}
            made |= {"top_k_experts": mixed.routing.n_used, "moe_intermediate_size": mixed.n_ff}
        return made

    def complete(self, values: Values) -> None:
        values["embedding_scale"] = float(values["n_embd"]) ** 0.5


def _attention(values: Values, i: int) -> Attention:
    """Return layer ``i``'s attention: with a window, narrow heads and their own rotation."""
    rope = rotation(values, "neox")
    own: dict[str, Any] = {"window": None}
    local = windowed(values, i, PERIOD)
    if local:
        width = values.get("head_dim_local") or widths(values)[0]
        own = {"window": values["window"], "head_dim": width, "head_dim_v": width}
        if not values.get("head_dim_local"):
            own["head_dim_v"] = widths(values)[1]
        dims = values.get("rope_local_dims") or rope.dims
        rope = Rope.local(values, "neox", dims) or rope
        # the small models, whose layers have inputs of their own, see pictures as text
        own["mutual"] = not values.get("n_embd_layer")
    n_own = values["n_layer"] - (values.get("n_shared_kv") or 0)
    if i >= n_own:  # the last own ones of the same kind
        alike = [j for j in range(n_own) if windowed(values, j, PERIOD) == local]
        own["owner"] = alike[-1] if alike else None
    return Attention.of(values, i, rope, scale=1.0, norms="head", value_norm=True, **own)


ARCHITECTURE = Gemma4()
