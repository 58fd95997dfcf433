"""Qwen3.5 and 3.6: gated DeltaNet layers, every fourth one full attention with gated output."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ggq.models import ledger, llama
from ggq.models.base import Architecture
from ggq.models.decoder import DECODER_KEYS, EMBEDDING, HEAD, MIXER_NORM, head_width
from ggq.models.hparams import HParams
from ggq.models.layers import attention, delta_net, feed_forward
from ggq.models.layers.attention import Attention, rotation
from ggq.models.layers.base import Layer, Part, Values
from ggq.models.layers.delta_net import DeltaNet
from ggq.models.layers.feed_forward import FeedForward
from ggq.models.layers.rope import sections, share
from ggq.models.table import Key, Tensor, absorbed_by, changed, norm, plus_one

__all__ = ["ARCHITECTURE", "QWEN35_KEYS", "Qwen35", "qwen35_rows"]

SECTIONS = [11, 11, 10, 0]  # transformers' default; text has one position for all of them
PERIOD = 4
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
    layer = (*mixer, *norm(FF_NORM, "post_attention_layernorm"), *feeds)
    return (*plus_one((EMBEDDING, *HEAD, *layer)), *delta)


def _recurrent(config: Mapping[str, Any]) -> list[bool] | None:
    """Return which layers are DeltaNet, None where the interval says it."""
    kinds = config.get("layer_types")
    period = config.get("full_attention_interval") or PERIOD
    found = [kind == "linear_attention" for kind in kinds or ()]
    return None if found == [(i + 1) % period != 0 for i in range(len(found))] else found


QWEN35_KEYS = changed(
    DECODER_KEYS,
    Key("{arch}.rope.dimension_count", (), "rope_dim", derive=share(0.25, head_width)),
    Key("{arch}.rope.dimension_sections", (), None, "u32s", derive=sections(SECTIONS)),
    *delta_net.KEYS,
    Key("{arch}.full_attention_interval", ("full_attention_interval",), "period", default=PERIOD),
    Key("{arch}.attention.recurrent_layers", (), "recurrent_layers", "bools", derive=_recurrent),
    Key("{arch}.nextn_predict_layers", (), "n_nextn", default=0),
)


class Qwen35(Architecture):
    """What the dense and the mixed models share."""

    exports = False
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

    def mixer(self, values: Values, i: int) -> Part:
        """Return layer ``i``'s DeltaNet, or its attention."""
        recurrent = (i + 1) % (values["period"] or PERIOD) != 0
        if isinstance(values.get("recurrent_layers"), tuple):
            recurrent = values.at("recurrent_layers", i, "recurrent layers")
        if recurrent:
            return DeltaNet.of(values, i, self.grouped)
        return Attention.of(values, i, rotation(values, "neox"), norms="head", gated=True)

    def forward(self, ops: Any, hp: HParams) -> Any:
        return llama.forward(ops, hp, ff_norm=FF_NORM)

    def ignores(self, hf_name: str, hp: HParams) -> bool:
        return super().ignores(hf_name, hp) or hf_name.startswith(("mtp.", "model.mtp."))

    def complete(self, values: Values) -> None:
        values["n_layer"] -= min(values["n_nextn"], values["n_layer"])  # predict further tokens


class Qwen35Dense(Qwen35):
    name = "qwen35"
    hf_classes = ("Qwen3_5ForCausalLM", "Qwen3_5ForConditionalGeneration")
    hf_model_type = "qwen3_5_text"
    fixed = {"hidden_act": ledger.SILU, "attn_output_gate": (True,)}  # noqa: RUF012 - read only
    rope_reads = ("mrope_section", "mrope_interleaved")
    keys = QWEN35_KEYS
    tensors = qwen35_rows(*feed_forward.TENSORS)

    def layer(self, values: Values, i: int) -> Layer:
        return Layer(self.mixer(values, i), FeedForward.of(values, i))


ARCHITECTURE = Qwen35Dense()
