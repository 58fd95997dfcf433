"""DeciLM and Nemotron NAS: llama whose layers differ in heads and width, and lack parts of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ggq.errors import ModelError
from ggq.models import ledger
from ggq.models.base import Architecture
from ggq.models.decoder import EMBEDDING, FF_NORM, HEAD, LLAMA_KEYS, MIXER_NORM, logits
from ggq.models.hparams import HParams
from ggq.models.layers import attention, feed_forward
from ggq.models.layers.attention import Attention, rotation
from ggq.models.layers.base import Layer, Part, Values
from ggq.models.layers.feed_forward import FeedForward
from ggq.models.layers.linear import linear, rms_norm
from ggq.models.layers.rope import ALL_FACTORS
from ggq.models.table import BLOCK, LAYER, Key, Tensor, changed, permuted

__all__ = ["ARCHITECTURE"]

MULTIPLE = 256  # of which a feed-forward's width is one
ATTENTION_OFF = (
    *("num_sink_tokens", "sparsify", "unshifted_sink", "window_length"),
    "use_prefill_window_in_sink_attention",
)
FF_OFF = ("replace_with_linear", "sparsify")


@dataclass(frozen=True)
class Map(Part):
    """One weight in the place of a layer's attention: no token sees another."""

    n_embd: int

    @property
    def dims(self) -> dict[str, int]:
        return {"o": self.n_embd}

    def forward(self, ops: Any, x: Any) -> Any:
        return linear(ops, x, f"blk.{self.layer}.attn_output")


Block = Mapping[str, Any]


def _blocks(config: Mapping[str, Any]) -> list[Block]:
    """Return what config.json says of each layer, nothing in the first DeciLMs; ModelError."""
    blocks = config.get("block_configs") or []
    parts = all(
        isinstance(b, Mapping) and all(isinstance(b.get(n), Mapping) for n in ("attention", "ffn"))
        for b in blocks
    )
    if blocks and (len(blocks) != config["num_hidden_layers"] or not parts):
        what = f"an attention and an ffn for each of {config['num_hidden_layers']} layers"
        raise ModelError(f"config.json: block_configs is not a list of {what}")
    return list(blocks)


def _queries(block: Block, config: Mapping[str, Any]) -> int:
    attends = block["attention"].get("n_heads_in_group") is not None
    kept = attends or block["attention"].get("replace_with_linear")
    return int(config["num_attention_heads"]) if kept else 0


def _keys(block: Block, config: Mapping[str, Any]) -> int:
    group = block["attention"].get("n_heads_in_group")
    return int(config["num_attention_heads"]) // max(group, 1) if group is not None else 0


def _width(block: Block, config: Mapping[str, Any]) -> int:
    """Return the columns of a feed-forward: a share of the embedding's, in whole multiples."""
    share = block["ffn"].get("ffn_mult")
    return -(-int(2 * (share or 0) * config["hidden_size"] / 3) // MULTIPLE) * MULTIPLE


def _each(what: Callable[[Block, Mapping[str, Any]], int], *otherwise: str) -> Any:
    """Return a derive function: ``what`` of each layer, or else the first setting there is."""

    def values(config: Mapping[str, Any]) -> Any:
        if blocks := _blocks(config):
            return [what(block, config) for block in blocks]
        return next((config[n] for n in otherwise if config.get(n) is not None), None)

    return values


def _with_maps(table: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Return ``table`` with the last weight of attention, or else what stands in its place."""
    own = (f"{LAYER}self_attn.linear_attn.weight", "copy")
    return tuple(
        replace(row, part=None, fused=own) if row.gguf == f"{BLOCK}attn_output.weight" else row
        for row in table
    )


class Deci(Architecture):
    name = "deci"
    hf_classes = ("DeciLMForCausalLM",)
    hf_model_type = "nemotron-nas"
    exports = False  # transformers has no class for it
    fixed = {"hidden_act": ledger.SILU}  # noqa: RUF012 - read only
    reads = (
        "block_configs",
        "num_key_value_heads_per_layer",
        "intermediate_size",
        "head_dim",
        "num_key_value_heads",
    )
    peer_factors = ALL_FACTORS
    keys = changed(
        LLAMA_KEYS,
        Key(
            "{arch}.attention.head_count",
            (),
            "n_head",
            "u32s",
            required=True,
            derive=_each(_queries, "num_attention_heads"),
        ),
        Key(
            "{arch}.attention.head_count_kv",
            (),
            "n_head_kv",
            "u32s",
            derive=_each(
                *(_keys, "num_key_value_heads_per_layer", "num_key_value_heads"),
                "num_attention_heads",
            ),
        ),
        Key(
            "{arch}.feed_forward_length",
            (),
            "n_ff",
            "u32s",
            required=True,
            derive=_each(_width, "intermediate_size"),
        ),
    )
    config_defaults = {  # noqa: RUF012 - read only
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
    }
    tensors = permuted(
        (
            *(EMBEDDING, *HEAD, *MIXER_NORM, *_with_maps(attention.TENSORS)),
            *(*FF_NORM, *feed_forward.TENSORS),
        )
    )

    def rows(self, hp: HParams) -> Iterator[tuple[str, Tensor, int | None]]:
        """Yield the rows of the parts that layers have."""
        for name, row, i in super().rows(hp):
            layer = None if i is None else hp.blocks[i]
            part = layer and (layer.feed if "ffn_" in row.gguf else layer.mixer)
            if type(part) is not Part:
                yield name, row, i

    def conflicts(self, config: Mapping[str, Any]) -> Iterator[tuple[str, Any, str]]:
        for i, block in enumerate(_blocks(config)):
            for part, names in (("attention", ATTENTION_OFF), ("ffn", FF_OFF)):
                for name in names:
                    if block[part].get(name):
                        where = f"block_configs[{i}].{part}.{name}"
                        yield where, block[part][name], "layers of this kind are not converted"

    def layer(self, values: Values, i: int) -> Layer:
        n_head, n_kv = (values.at(name, i, "head counts") for name in ("n_head", "n_head_kv"))
        mixer: Part = Part(layer=i)
        if n_head:
            whole = n_kv is None or n_kv > 0
            rope = rotation(values, "norm")
            mixer = Attention.of(values, i, rope) if whole else Map(values["n_embd"], layer=i)
        wide = feed_forward.width(values, i)
        return Layer(mixer, FeedForward.of(values, i) if wide else Part(layer=i))

    def forward(self, ops: Any, hp: HParams) -> Any:
        x = ops.embed("token_embd.weight")
        for layer in hp.layers:
            for part, norm in ((layer.mixer, "attn_norm"), (layer.feed, "ffn_norm")):
                if type(part) is not Part:  # the layer has it
                    normed = rms_norm(ops, x, f"{layer.prefix}{norm}", hp.norm_eps)
                    x = ops.add(x, part.forward(ops, normed))
        return logits(ops, x, hp)


ARCHITECTURE = Deci()
