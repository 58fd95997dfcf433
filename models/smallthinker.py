"""SmallThinker: experts behind a rectifier, chosen by what enters the layer, not by its norm."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from ggq.models.base import Architecture
from ggq.models.decoder import DECODER_KEYS, EMBEDDING, FF_NORM, HEAD, MIXER_NORM, logits
from ggq.models.hparams import HParams
from ggq.models.layers import attention, experts
from ggq.models.layers.attention import Attention, rotation
from ggq.models.layers.base import Layer, Values
from ggq.models.layers.experts import GATING, Experts, expert_rows
from ggq.models.layers.linear import rms_norm
from ggq.models.layers.rope import Rope
from ggq.models.table import Key, Tensor, changed

__all__ = ["ARCHITECTURE"]

PERIOD = 4  # where there is a window, every fourth layer sees all and has no positions
MOE = "block_sparse_moe."
EXPERT = f"{MOE}experts.{{e}}."


def _window(config: Mapping[str, Any]) -> int | None:
    return config.get("sliding_window_size") if any(_layout(config, "sliding_window", 0)) else None


def _layout(config: Mapping[str, Any], name: str, usual: int) -> list[bool]:
    """Return which layers have a window, or a rotation."""
    given = config.get(f"{name}_layout") or [usual] * config["num_hidden_layers"]
    return [bool(n) for n in given]


def _ahead_of_norms(table: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Return ``table`` with a router that sees what no norm has seen, and no other weight sees."""
    own = f"{MOE}primary_router"
    return tuple(
        replace(row, input="layer_in", absorbs=None) if own in row.hf[0] else row for row in table
    )


class SmallThinker(Architecture):
    name = "smallthinker"
    hf_classes = ("SmallThinkerForCausalLM",)
    hf_model_type = "smallthinker"
    exports = False  # transformers has no class for it
    fixed = {  # noqa: RUF012 - read only
        "hidden_act": ("relu",),
        "norm_topk_prob": (True,),
        "moe_enable_early_router": (True,),
        "moe_enable_secondary_experts": (False,),
    }
    reads = (
        "sliding_window_layout",
        "sliding_window_size",
        "rope_layout",
        "model_name",
        "moe_layer_layout",
    )
    keys = changed(
        (*DECODER_KEYS, *experts.KEYS),
        Key("{arch}.feed_forward_length", ("moe_ffn_hidden_size",), "n_ff", "u32s", required=True),
        Key("{arch}.expert_feed_forward_length", ("moe_ffn_hidden_size",), "n_ff_expert"),
        Key("{arch}.expert_count", ("moe_num_primary_experts",), "n_expert", required=True),
        Key(
            "{arch}.expert_used_count",
            ("moe_num_active_primary_experts",),
            "n_expert_used",
            required=True,
        ),
        Key(
            "{arch}.expert_gating_func",
            (),
            "gating_func",
            derive=lambda c: 1 if c.get("moe_primary_router_apply_softmax") else 2,
        ),
        Key("{arch}.attention.sliding_window", (), "window", derive=_window),
    )
    config_defaults = {  # noqa: RUF012 - read only
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1e6,
    }
    tensors = (
        *(EMBEDDING, *HEAD, *MIXER_NORM, *attention.TENSORS, *FF_NORM),
        *_ahead_of_norms(
            expert_rows(f"{EXPERT}gate", f"{EXPERT}up", f"{EXPERT}down", f"{MOE}primary_router")
        ),
    )

    def conflicts(self, config: Mapping[str, Any]) -> Iterator[tuple[str, Any, str]]:
        n_layer = config["num_hidden_layers"]
        if not all(mixed := _layout(config, "moe_layer", 1)):
            yield "moe_layer_layout", mixed, "every layer has experts here"
        slides = _layout(config, "sliding_window", 0)
        usual = [i % PERIOD != 0 for i in range(n_layer)]
        if slides not in ([False] * n_layer, usual):
            why = f"all layers but every {PERIOD}th have the window here, or none has"
            yield "sliding_window_layout", slides, why
        elif (turns := _layout(config, "rope", 1)) != (usual if any(slides) else [True] * n_layer):
            yield "rope_layout", turns, "layers with a window rotate here, or all where none has"

    def layer(self, values: Values, i: int) -> Layer:
        rope: Rope | None = rotation(values, "neox")
        window = values.get("window") or None
        if window and i % PERIOD == 0:
            rope, window = None, None
        mixer = Attention.of(values, i, rope, window=window)
        return Layer(mixer, Experts.of(values, i, activation="relu", normalize=True))

    def complete(self, values: Values) -> None:
        names = {number: name for name, number in GATING.items()}
        values["gating"] = names.get(values.get("gating_func") or 1, "softmax")

    def forward(self, ops: Any, hp: HParams) -> Any:
        x = ops.embed("token_embd.weight")
        for layer in hp.layers:
            entered = x
            normed = rms_norm(ops, x, f"{layer.prefix}attn_norm", hp.norm_eps)
            x = ops.add(x, layer.mixer.forward(ops, normed))
            normed = rms_norm(ops, x, f"{layer.prefix}ffn_norm", hp.norm_eps)
            feed = layer.find(Experts)
            assert feed is not None, "every layer has some"
            x = ops.add(x, feed.forward(ops, normed, entered))
        return logits(ops, x, hp)


ARCHITECTURE = SmallThinker()
