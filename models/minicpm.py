"""MiniCPM 1, 2 and 4: llama with scaled embeddings, residuals and logits, as Granite has them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from ggq.models import granite, ledger
from ggq.models.base import Architecture
from ggq.models.decoder import DECODER_TENSORS, LLAMA_KEYS
from ggq.models.hparams import HParams
from ggq.models.layers.attention import Attention, rotation
from ggq.models.layers.base import Layer, Values
from ggq.models.layers.feed_forward import FeedForward
from ggq.models.layers.rope import ALL_FACTORS, LONG_AND_SHORT
from ggq.models.table import Key, permuted
from ggq.models.vocabulary import LLAMA_VOCAB

__all__ = ["ARCHITECTURE", "MiniCpm", "spanning"]


def spanning(config: Mapping[str, Any]) -> Iterator[tuple[str, Any, str]]:
    """Yield a LongRoPE that spans more than the trained context: its magnitude has no key."""
    rope, longest = config["rope_parameters"], config.get("max_position_embeddings")
    original = rope.get("original_max_position_embeddings")
    if rope.get("rope_type") == "longrope" and original and original != longest:
        name = "rope_parameters.original_max_position_embeddings"
        yield name, original, f"it is converted with max_position_embeddings ({longest})"


def _residual(config: Mapping[str, Any]) -> float | None:
    """Return the factor on what each part of a layer adds."""
    depth, n = config.get("scale_depth"), config.get("num_hidden_layers")
    return depth / math.sqrt(n) if depth and n else None


def _divisor(config: Mapping[str, Any]) -> float | None:
    """Return what the logits are divided by."""
    base, width = config.get("dim_model_base"), config.get("hidden_size")
    return width / base if base and width else None


class MiniCpm(Architecture):
    name = "minicpm"
    hf_classes = ("MiniCPMForCausalLM",)
    hf_model_type = "minicpm"
    exports = False  # transformers has no class for it
    keys = (
        *LLAMA_KEYS,
        Key("{arch}.embedding_scale", ("scale_emb",), "embedding_scale", "f32", default=12.0),
        Key("{arch}.residual_scale", (), "residual_scale", "f32", derive=_residual),
        Key("{arch}.logit_scale", (), "logit_scale", "f32", derive=_divisor),
    )
    config_defaults = {  # noqa: RUF012 - read only
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "scale_emb": 1,
        "scale_depth": 1,
        "dim_model_base": 1,
    }
    fixed = {"hidden_act": ledger.SILU}  # noqa: RUF012 - read only
    rope_types = ("default", "longrope")
    peer_factors = ALL_FACTORS
    tensors = permuted(DECODER_TENSORS)
    vocab = LLAMA_VOCAB

    def layer(self, values: Values, i: int) -> Layer:
        rope = replace(rotation(values, "norm"), long_and_short=LONG_AND_SHORT)
        return Layer(Attention.of(values, i, rope), FeedForward.of(values, i))

    def forward(self, ops: Any, hp: HParams) -> Any:
        return granite.forward(ops, hp)

    def complete(self, values: Values) -> None:
        """Fill in what files of the first MiniCPMs, made before keys said it, leave out."""
        values["residual_scale"] = values.get("residual_scale") or 1.4 / values["n_layer"] ** 0.5
        values["logit_scale"] = values.get("logit_scale") or values["n_embd"] / 256
        granite.inverted(values)

    def conflicts(self, config: Mapping[str, Any]) -> Iterator[tuple[str, Any, str]]:
        return spanning(config)


ARCHITECTURE = MiniCpm()
