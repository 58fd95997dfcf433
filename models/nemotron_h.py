"""NVIDIA Nemotron H: every layer one part, Mamba-2, attention without positions or a network."""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from ggq.errors import ModelError
from ggq.models import mamba2 as plain
from ggq.models.base import Architecture
from ggq.models.decoder import (
    DECODER_KEYS,
    EMBEDDING,
    HEAD,
    MIXER_NORM,
    VOCAB_KEY,
    with_head_width,
)
from ggq.models.hparams import HParams
from ggq.models.layers import attention, feed_forward, mamba2
from ggq.models.layers.attention import Attention
from ggq.models.layers.base import Layer, Part, Values
from ggq.models.layers.feed_forward import FeedForward
from ggq.models.layers.mamba2 import Mamba2
from ggq.models.table import Key, Tensor, absorbed_by, changed, renamed

__all__ = ["ARCHITECTURE", "NemotronH", "kinds", "nemotron_rows"]

LEAST_STEP = 0.001  # transformers raises steps to it; the kernels of training and others do not
NO_LIMIT = 1e-9
SPACE, ATTENTION, NETWORK, EXPERTS = "linear_attention", "full_attention", "mlp", "moe"
NAMED = {"mamba": SPACE, "attention": ATTENTION, "M": SPACE, "*": ATTENTION, "-": NETWORK}
NAMED["E"] = EXPERTS
NAMES = {**plain.HF_NAMES, ".self_attn.": ".mixer.", ".mlp.": ".mixer."}


def kinds(config: Mapping[str, Any]) -> list[str]:
    """Return what each layer is, from a list of names or a text of letters."""
    listed = config.get("layers_block_type") or config.get("layer_types")
    listed = listed or config.get("hybrid_override_pattern") or ()
    return [NAMED.get(kind, kind) for kind in listed]


def nemotron_rows(*feeds: Tensor) -> tuple[Tensor, ...]:
    """Return the rows of a model whose networks have the rows ``feeds``: they see the one norm."""
    feeds = absorbed_by(feeds, {"ffn_norm": "attn_norm"})
    rows = (EMBEDDING, *HEAD, *MIXER_NORM, *attention.TENSORS, *mamba2.TENSORS, *feeds)
    return renamed(rows, NAMES)


def _heads_kv(config: Mapping[str, Any]) -> list[int]:
    """Return the key-value heads of each layer, none where it is no attention."""
    heads = config.get("num_key_value_heads") or config["num_attention_heads"]
    return [heads if kind == ATTENTION else 0 for kind in kinds(config)]


def _ff(config: Mapping[str, Any]) -> list[int]:
    """Return the width of each layer's network, 0 where it has none."""
    widths = {NETWORK: config["intermediate_size"], EXPERTS: config.get("moe_intermediate_size", 0)}
    return [widths.get(kind, 0) for kind in kinds(config)]


def _inner(config: Mapping[str, Any]) -> int:
    return int(config["mamba_num_heads"] * config["mamba_head_dim"])


class NemotronH(Architecture):
    """What the dense and the mixed models share."""

    hf_prefixes = ("", "language_model.")
    rope_types = ("default",)
    fixed = {  # noqa: RUF012 - read only
        "mlp_hidden_act": ("relu2",),
        "mamba_hidden_act": ("silu",),
        "use_bias": (False,),
        "mamba_proj_bias": (False,),
    }
    reads: ClassVar[tuple[str, ...]] = (
        *("num_hidden_layers", "num_key_value_heads", "intermediate_size", "time_step_limit"),
        *("layers_block_type", "layer_types", "hybrid_override_pattern", "mamba_head_dim"),
        *(
            "time_step_min",
            "time_step_max",
            "time_step_floor",
            "time_step_rank",
            "residual_in_fp32",
            "expand",
        ),
        *("rescale_prenorm_residual", "num_logits_to_keep", "mamba_ssm_cache_dtype"),
        *("moe_shared_expert_overlap", "mtp_layers_block_type", "mtp_hybrid_override_pattern"),
        *("mamba_num_heads", "attention_head_dim", "moe_intermediate_size", "conv_kernel"),
    )
    keys = changed(
        (*with_head_width(DECODER_KEYS), VOCAB_KEY),
        Key("{arch}.block_count", (), "n_layer", required=True, derive=lambda c: len(kinds(c))),
        Key("{arch}.feed_forward_length", (), "n_ff", "u32s", required=True, derive=_ff),
        Key("{arch}.attention.head_count_kv", (), "n_head_kv", "u32s", derive=_heads_kv),
        Key(
            "{arch}.attention.layer_norm_epsilon",
            ("layer_norm_epsilon",),
            "norm_eps",
            "f32",
            required=True,
        ),
        Key("{arch}.ssm.conv_kernel", ("conv_kernel",), "conv_kernel", required=True),
        Key("{arch}.ssm.state_size", ("ssm_state_size",), "ssm_state", required=True),
        Key("{arch}.ssm.group_count", ("n_groups",), "ssm_groups", required=True),
        Key("{arch}.ssm.inner_size", (), "ssm_inner", required=True, derive=_inner),
        Key("{arch}.ssm.time_step_rank", ("mamba_num_heads",), "ssm_heads", required=True),
        without=("{arch}.rope.freq_base", "{arch}.attention.layer_norm_rms_epsilon"),
    )
    config_defaults = {  # noqa: RUF012 - read only
        "max_position_embeddings": 4096,
        "layer_norm_epsilon": 1e-5,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "conv_kernel": 4,
        "ssm_state_size": 128,
        "mamba_num_heads": 128,
        "mamba_head_dim": 64,
        "n_groups": 8,
    }

    def conflicts(self, config: Mapping[str, Any]) -> Iterator[tuple[str, Any, str]]:
        yield from mamba2.limits(config)
        if (least := config.get("time_step_min") or 0) > LEAST_STEP:
            yield "time_step_min", least, "time steps are not limited here"
        allowed = {SPACE, ATTENTION, self.network}
        for kind in set(kinds(config)) - allowed:
            yield "layers_block_type", kind, f"{self.name} has layers of {sorted(allowed)} only"

    network = NETWORK  # the kind of a layer that is no mixer

    def config(self, config: Mapping[str, Any]) -> dict[str, Any]:
        given = dict(config)
        if given.get("head_dim") is None and given.get("attention_head_dim") is not None:
            given["head_dim"] = given["attention_head_dim"]
        flat = super().config(given)
        if not kinds(flat):
            raise ModelError("config.json has no layers_block_type and no hybrid_override_pattern")
        return flat

    def feed(self, values: Values, i: int) -> Part:
        """Return the network of layer ``i``."""
        return FeedForward.of(values, i, activation="relu2", gated=False)

    def layer(self, values: Values, i: int) -> Layer:
        if values.at("n_head_kv", i, "key-value head counts"):
            return Layer(Attention.of(values, i, None))
        if feed_forward.width(values, i):
            return Layer(self.feed(values, i))
        return Layer(Mamba2.of(values, i))

    def ignores(self, hf_name: str, hp: HParams) -> bool:
        further = hf_name.startswith("mtp.")  # a head that predicts further tokens, left out
        return super().ignores(hf_name, hp) or further

    def forward(self, ops: Any, hp: HParams) -> Any:
        return plain.forward(ops, hp)

    def export_config(self, hp: HParams) -> dict[str, Any]:
        space, attends = hp.find(Mamba2), hp.find(Attention)
        assert space is not None and attends is not None
        named = {Mamba2: SPACE, Attention: ATTENTION}
        return {
            "layers_block_type": [
                named.get(type(layer.mixer), self.network) for layer in hp.layers
            ],
            "hidden_act": None,
            "rescale_prenorm_residual": False,
            "time_step_min": NO_LIMIT,
            "num_key_value_heads": attends.n_head_kv,
            "mamba_head_dim": space.head_dim,
            "intermediate_size": max(getattr(layer.mixer, "n_ff", 0) for layer in hp.layers),
        }


class Dense(NemotronH):
    name = "nemotron_h"
    hf_classes = ("NemotronHForCausalLM",)
    hf_model_type = "nemotron_h"
    reads = (
        *NemotronH.reads,
        *("n_routed_experts", "n_shared_experts", "moe_shared_expert_intermediate_size"),
        *("moe_latent_size", "num_experts_per_tok", "routed_scaling_factor", "n_group"),
        *("topk_group", "norm_topk_prob"),
    )
    tensors = nemotron_rows(*feed_forward.UNGATED_TENSORS)

    def suits(self, config: Mapping[str, Any]) -> bool:
        return EXPERTS not in kinds(config)


ARCHITECTURE = Dense()
