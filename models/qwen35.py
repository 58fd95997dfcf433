"""Qwen3.5 and 3.6: gated DeltaNet layers, every fourth one full attention with gated output."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ggq.models import heads, ledger, llama
from ggq.models.base import Architecture
from ggq.models.decoder import DECODER_KEYS, EMBEDDING, HEAD, MIXER_NORM, head_width
from ggq.models.hparams import HParams
from ggq.models.layers import attention, delta_net, feed_forward, next_n
from ggq.models.layers.attention import Attention, rotation
from ggq.models.layers.base import Layer, Part, Values
from ggq.models.layers.delta_net import DeltaNet
from ggq.models.layers.feed_forward import FeedForward
from ggq.models.layers.rope import sections, share
from ggq.models.table import Key, Tensor, absorbed_by, changed, norm, plus_one

__all__ = ["ARCHITECTURE", "QWEN35_KEYS", "Qwen35", "qwen35_rows"]

SECTIONS = [11, 11, 10, 0]  # transformers' default; text has one position for all of them
PERIOD = 4
HEAD_NAMES = {  # what stands once, beside the heads' layers
    "eh_proj": "fc",
    "enorm": "pre_fc_norm_embedding",
    "hnorm": "pre_fc_norm_hidden",
    "shared_head.norm": "norm",
}
FF_NORM = "post_attention_norm"  # what the norm before the feed-forward is called here


def qwen35_rows(
    *feeds: Tensor, delta: tuple[Tensor, ...] = delta_net.TENSORS
) -> tuple[Tensor, ...]:
    """Return the rows of a model whose feed-forward layers have the rows ``feeds``."""
    feeds = absorbed_by(feeds, {"ffn_norm": FF_NORM})
    wide = ("2*q", "embd")  # queries and their gates
    queries = attention.TENSORS[:2]
    gated = tuple(replace(r, shape=wide[: len(r.shape)]) for r in queries)
    mixer = (*MIXER_NORM, *gated, *attention.TENSORS[2:], *attention.QK_NORMS)
    layer = (*mixer, *norm(FF_NORM, "post_attention_layernorm"), *feeds, *next_n.TENSORS)
    return (*plus_one((EMBEDDING, *HEAD, *layer)), *delta)


def _recurrent(config: Mapping[str, Any]) -> list[bool] | None:
    """Return which layers are DeltaNet, None where the interval says it."""
    kinds = config.get("layer_types")
    period = config.get("full_attention_interval") or PERIOD
    found = [kind == "linear_attention" for kind in kinds or ()]
    usual = found == [(i + 1) % period != 0 for i in range(len(found))]
    return None if usual else [*found, *[False] * (config.get(next_n.FOUND) or 0)]


QWEN35_KEYS = changed(
    DECODER_KEYS,
    Key("{arch}.rope.dimension_count", (), "rope_dim", derive=share(0.25, head_width)),
    Key("{arch}.rope.dimension_sections", (), "rope_sections", "u32s", derive=sections(SECTIONS)),
    *delta_net.KEYS,
    Key("{arch}.full_attention_interval", ("full_attention_interval",), "period", default=PERIOD),
    Key("{arch}.attention.recurrent_layers", (), "recurrent_layers", "bools", derive=_recurrent),
    *next_n.KEYS,
)


class Qwen35(Architecture):
    """What the dense and the mixed models share."""

    heads_in = "mtp.layers."
    hf_prefixes = (*Architecture.hf_prefixes, "model.")
    grouped = False  # whether value heads of a key head are neighbours
    config_defaults = {  # noqa: RUF012 - read only
        "head_dim": 256,
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "full_attention_interval": PERIOD,
        "linear_conv_kernel_dim": 4,
        "linear_key_head_dim": 128,
        "linear_value_head_dim": 128,
        "linear_num_key_heads": 16,
        "linear_num_value_heads": 32,
    }

    def complete(self, values: Values) -> None:
        values["rope_interleaved"] = True

    def layer(self, values: Values, i: int) -> Layer:
        return Layer(self.mixer(values, i), self.feed(values, i))

    def feed(self, values: Values, i: int) -> Part:
        """Return the network of layer ``i``."""
        return FeedForward.of(values, i)

    def mixer(self, values: Values, i: int) -> Part:
        """Return layer ``i``'s DeltaNet, or its attention."""
        recurrent = (i + 1) % (values["period"] or PERIOD) != 0
        if isinstance(values.get("recurrent_layers"), tuple):
            recurrent = values.at("recurrent_layers", i, "recurrent layers")
        if recurrent:
            return DeltaNet.of(values, i, self.grouped)
        return self.attention(values, i)

    def attention(self, values: Values, i: int) -> Attention:
        """Return the attention of layer ``i``, if it has one."""
        return Attention.of(values, i, rotation(values, "neox"), norms="head", gated=True)

    def forward(self, ops: Any, hp: HParams) -> Any:
        return llama.forward(ops, hp, ff_norm=FF_NORM)

    def predict(self, ops: Any, hp: HParams) -> Any:
        return heads.predict(ops, hp, ff_norm=FF_NORM)

    def head(self, values: Values, i: int) -> Layer:
        return next_n.as_head(Layer(self.attention(values, i), self.feed(values, i)))

    def ignores(self, hf_name: str, hp: HParams) -> bool:
        further = hf_name.startswith(("mtp.", "model.mtp."))
        return super().ignores(hf_name, hp) or (further and not hp.heads)

    def export_config(self, hp: HParams) -> dict[str, Any]:
        delta, mixer = hp.find(DeltaNet), hp.find(Attention)
        deltas = [layer.find(DeltaNet) for layer in hp.layers]
        made: dict[str, Any] = {
            "layer_types": ["linear_attention" if d else "full_attention" for d in deltas],
        }
        if delta is not None:
            made["linear_value_head_dim"] = delta.head_dim_v
        if hp.n_expert:
            made |= {"num_experts": hp.n_expert, "num_local_experts": None}
        if mixer is not None and mixer.rope is not None:
            share = {"partial_rotary_factor": mixer.rope.dims / mixer.head_dim}
            made |= share | {"rope_parameters": mixer.rope.settings() | share}
            if mixer.rope.sections:
                made["rope_parameters"]["mrope_section"] = list(mixer.rope.sections[:3])
        return made

    def placed(self, hf_name: str, hp: HParams, layer: int | None) -> str:
        if layer is None or layer < hp.n_layer:
            return hf_name
        name = hf_name.removeprefix(f"model.layers.{layer}.")
        stem = HEAD_NAMES.get(name.removesuffix(".weight"))
        return f"mtp.{stem}.weight" if stem else f"{self.heads_in}{layer - hp.n_layer}.{name}"


class Qwen35Dense(Qwen35):
    name = "qwen35"
    hf_classes = ("Qwen3_5ForCausalLM", "Qwen3_5ForConditionalGeneration")
    hf_model_type = "qwen3_5_text"
    fixed = {"hidden_act": ledger.SILU, "attn_output_gate": (True,)}  # noqa: RUF012 - read only
    rope_reads = ("mrope_section", "mrope_interleaved")
    keys = QWEN35_KEYS
    tensors = qwen35_rows(*feed_forward.TENSORS)


ARCHITECTURE = Qwen35Dense()
