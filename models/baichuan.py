"""Baichuan 1 and 2: llama with one weight for queries, keys and values; ALiBi in the 13B."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from ggq.errors import ModelError
from ggq.models import llama
from ggq.models.base import Architecture
from ggq.models.decoder import DECODER_TENSORS, LLAMA_KEYS, SEQUENCE_KEY
from ggq.models.hparams import HParams
from ggq.models.layers.attention import Attention, rotation
from ggq.models.layers.base import Layer, Values
from ggq.models.layers.feed_forward import FeedForward
from ggq.models.table import Tensor, changed, taken_from

__all__ = ["ARCHITECTURE"]

ROTATED, WITH_ALIBI = 32, 40  # layers of the 7B and of the 13B: no setting tells them apart
ALIBI = 8.0
UNIT_HEAD = 125696  # the vocabulary of Baichuan 2, whose head's rows have length 1


class Baichuan(Architecture):
    name = "baichuan"
    hf_classes = ("BaichuanForCausalLM", "BaiChuanForCausalLM")
    hf_model_type = "baichuan"
    exports = False  # transformers has no class for it
    keys = changed(
        LLAMA_KEYS,
        SEQUENCE_KEY,
    )
    config_defaults = {"rms_norm_eps": 1e-6, "rope_theta": 10000.0}  # noqa: RUF012 - read only
    reads = ("z_loss_weight", "unk_token_id")
    rope_types = ("default", "linear")
    tensors = taken_from("self_attn.W_pack", DECODER_TENSORS, "packed")

    def layer(self, values: Values, i: int) -> Layer:
        rope = rotation(values, "norm") if values["n_layer"] == ROTATED else None
        alibi = 0.0 if rope else ALIBI
        return Layer(Attention.of(values, i, rope, alibi=alibi), FeedForward.of(values, i))

    def forward(self, ops: Any, hp: HParams) -> Any:
        return llama.forward(ops, hp)

    def complete(self, values: Values) -> None:
        if values["n_layer"] not in (ROTATED, WITH_ALIBI):
            known = f"{ROTATED} (7B, rotary positions) and {WITH_ALIBI} (13B, ALiBi)"
            raise ModelError(f"baichuan: {values['n_layer']} layers; {known} are known")

    def rows(self, hp: HParams) -> Iterator[tuple[str, Tensor, int | None]]:
        for name, row, layer in super().rows(hp):
            unit = name == "output.weight" and hp.n_vocab == UNIT_HEAD
            yield name, replace(row, transform="unit_rows") if unit else row, layer


ARCHITECTURE = Baichuan()
