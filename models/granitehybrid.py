"""IBM Granite 4 H and Bamba: most layers Mamba-2, few attention; dense or with experts."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from ggq.errors import ModelError
from ggq.models import granite, ledger
from ggq.models.base import Architecture
from ggq.models.decoder import (
    EMBEDDING,
    FF_NORM,
    HEAD,
    LLAMA_KEYS,
    MIXER_NORM,
    head_width,
)
from ggq.models.granite import FACTOR_KEYS, Granite
from ggq.models.hparams import HParams
from ggq.models.layers import attention, experts, feed_forward, mamba2
from ggq.models.layers.attention import Attention, rotation
from ggq.models.layers.base import Layer, Part, Values
from ggq.models.layers.experts import Experts, shared_rows
from ggq.models.layers.feed_forward import FeedForward
from ggq.models.layers.mamba2 import Mamba2
from ggq.models.layers.rope import share
from ggq.models.table import BLOCK, LAYER, Key, Tensor, changed, permuted
from ggq.models.vocabulary import LLAMA_VOCAB

__all__ = ["ARCHITECTURE", "ROUTED", "SHARED", "halved"]

HALVES = {"gate": "first_half", "up": "second_half"}  # of one tensor of the checkpoint


def _attends(config: Mapping[str, Any]) -> list[bool]:
    kinds = config.get("layer_types") or ()
    if not kinds and config.get("model_type") == BAMBA:
        listed = config.get("attn_layer_indices") or ()
        return [i in listed for i in range(config["num_hidden_layers"])]
    return [kind in ("attention", "full_attention") for kind in kinds]


def _heads_kv(config: Mapping[str, Any]) -> list[int]:
    """Return the key-value heads of each layer, none in a state space."""
    heads = config.get("num_key_value_heads") or config["num_attention_heads"]
    return [heads if attends else 0 for attends in _attends(config)]


def _ff(config: Mapping[str, Any]) -> Any:
    """Return the width of an expert, or of the network where there are none."""
    whole = config.get("num_local_experts") or config.get("model_type") == BAMBA
    return config.get("intermediate_size" if whole else "shared_intermediate_size")


def _with_experts(name: str) -> Callable[[Mapping[str, Any]], Any]:
    """Return a derive function: the setting ``name`` of models that have experts."""
    return lambda config: config.get(name) if config.get("num_local_experts") else None


def halved(rows: tuple[Tensor, ...], down: str, both: str) -> tuple[Tensor, ...]:
    """Return ``rows`` of gate, up and down as HF has them: gate and up in one tensor."""
    found = []
    for row in rows:
        half = next((h for name, h in HALVES.items() if f"ffn_{name}" in row.gguf), None)
        name = f"model.layers.{{i}}.{both if half else down}.weight"
        found.append(replace(row, hf=(name,), transform=half or "copy"))
    return tuple(found)


def _also(table: tuple[Tensor, ...], names: Mapping[str, str]) -> tuple[Tensor, ...]:
    """Return ``table`` with other HF names that may stand in the place of its own: Bamba's."""
    found = []
    for row in table:
        name = names.get(row.gguf.removesuffix(".weight"))
        found.append(replace(row, fused=(f"{name}.weight", "copy")) if name else row)
    return tuple(found)


BAMBA = "bamba"
BAMBA_NAMES = {
    "output_norm": "model.final_layernorm",
    f"{BLOCK}ffn_norm": f"{LAYER}pre_ff_layernorm",
    **{f"{BLOCK}ffn_{n}": f"{LAYER}feed_forward.{n}_proj" for n in ("gate", "up", "down")},
}
BAMBA_DEFAULTS = {  # what its config class has in other ways than Granite's
    "model_type": BAMBA,
    "max_position_embeddings": 262144,
    "num_key_value_heads": 8,
    "partial_rotary_factor": 0.5,
    "position_embedding_type": "rope",
    "rms_norm_eps": 1e-5,
    "num_local_experts": 0,
}
DENSE = tuple(row for row in feed_forward.TENSORS if row.gguf.endswith("weight"))
SHARED = halved(shared_rows("shared_mlp"), "shared_mlp.output_linear", "shared_mlp.input_linear")
MOE = "block_sparse_moe."
ROUTER, *STACKS = experts.expert_rows("", "", "", f"{MOE}router.layer")
ROUTED = (ROUTER, *halved(tuple(STACKS), f"{MOE}output_linear", f"{MOE}input_linear"))


class GraniteHybrid(Architecture):
    name = "granitehybrid"
    hf_classes = ("GraniteMoeHybridForCausalLM", "BambaForCausalLM")
    hf_model_type = "granitemoehybrid"
    fixed = {  # noqa: RUF012 - read only
        "hidden_act": ledger.SILU,
        "normalization_function": ("rmsnorm",),
    }
    reads = (
        *("intermediate_size", "shared_intermediate_size", "num_experts_per_tok"),
        *("mamba_proj_bias", "mamba_d_head", "time_step_limit", "num_logits_to_keep"),
    )

    def conflicts(self, config: Mapping[str, Any]) -> Iterator[tuple[str, Any, str]]:
        return mamba2.limits(config)

    keys = changed(
        (*LLAMA_KEYS, *experts.KEYS, *FACTOR_KEYS, *mamba2.KEYS),
        Key("{arch}.feed_forward_length", (), "n_ff", "u32s", required=True, derive=_ff),
        Key("{arch}.rope.dimension_count", (), "rope_dim", derive=share(1.0, head_width)),
        Key("{arch}.attention.head_count_kv", (), "n_head_kv", "u32s", derive=_heads_kv),
        Key(
            "{arch}.expert_used_count",
            (),
            "n_expert_used",
            default=0,
            derive=_with_experts("num_experts_per_tok"),
        ),
        Key(
            "{arch}.expert_shared_feed_forward_length",
            (),
            "n_ff_shared",
            derive=_with_experts("shared_intermediate_size"),
        ),
        Key(
            "{arch}.rope.scaling.finetuned",  # what llama.cpp calls having positions at all
            attr="positions",
            type="bool",
            default=True,
            derive=lambda config: config.get("position_embedding_type") == "rope",
        ),
    )
    config_defaults = Granite.config_defaults | {
        "mamba_d_conv": 4,
        "mamba_d_state": 256,
        "mamba_expand": 2,
        "mamba_n_groups": 1,
        "mamba_n_heads": 128,
        "num_local_experts": 0,
    }
    tensors = _also(
        (
            EMBEDDING,
            *HEAD,
            *MIXER_NORM,
            *permuted(attention.TENSORS),
            *mamba2.TENSORS,
            *FF_NORM,
            *halved(DENSE, "shared_mlp.output_linear", "shared_mlp.input_linear"),
            *ROUTED,
            *SHARED,
        ),
        BAMBA_NAMES,
    )
    vocab = LLAMA_VOCAB

    def layer(self, values: Values, i: int) -> Layer:
        if values["n_expert"]:
            return Layer(self._mixer(values, i), Experts.of(values, i, normalize=True))
        return Layer(self._mixer(values, i), FeedForward.of(values, i))

    def _mixer(self, values: Values, i: int) -> Part:
        if values.at("n_head_kv", i, "key-value head counts") == 0:
            return Mamba2.of(values, i)
        return Attention.of(values, i, rotation(values, "norm") if values["positions"] else None)

    def forward(self, ops: Any, hp: HParams) -> Any:
        return granite.forward(ops, hp)

    def complete(self, values: Values) -> None:
        granite.inverted(values)

    def export_config(self, hp: HParams) -> dict[str, Any]:
        space, mixer = hp.find(Mamba2), hp.find(Attention)
        if space is None or mixer is None:
            raise ModelError(
                "granitehybrid: writing it is not supported where all layers are of one kind"
            )
        if mixer.rope and mixer.rope.dims != mixer.head_dim:
            raise ModelError(
                "granitehybrid: writing it is not supported where heads rotate in part (Bamba)"
            )
        made: dict[str, Any] = {
            "layer_types": ["mamba" if layer.find(Mamba2) else "attention" for layer in hp.layers],
            "position_embedding_type": "rope" if mixer.rope else "nope",
            "num_key_value_heads": mixer.n_head_kv,
            "mamba_d_head": space.head_dim,
            "mamba_expand": space.inner // hp.n_embd,
            "mamba_proj_bias": False,
        }
        routed, dense = hp.find(Experts), hp.find(FeedForward)
        if routed is None:
            return made | {"shared_intermediate_size": dense.n_ff if dense else 0}
        return made | {
            "num_experts_per_tok": hp.n_expert_used,
            "intermediate_size": routed.n_ff,
            "shared_intermediate_size": routed.n_ff_shared,
        }

    def config(self, config: Mapping[str, Any]) -> dict[str, Any]:
        if "BambaForCausalLM" in (config.get("architectures") or ()):
            scale = (head_width(config) or 1) ** -0.5
            given = {k: v for k, v in config.items() if v is not None}
            config = {**BAMBA_DEFAULTS, "attention_multiplier": scale, **given}
        flat = super().config(config)
        if flat.get("mamba_proj_bias") or flat.get("mamba_conv_bias") is False:
            raise ModelError("granitehybrid: mamba_proj_bias, or no mamba_conv_bias")
        return flat


ARCHITECTURE = GraniteHybrid()
