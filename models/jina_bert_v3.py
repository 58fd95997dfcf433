"""jina-embeddings-v3: XLM-RoBERTa with rotary positions; adapters for tasks are left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ggq.models.encoder import ENCODER_KEYS, Encoder, embedded, embedding, encode, encoder_norm
from ggq.models.hparams import HParams
from ggq.models.layers.attention import Attention, rotation
from ggq.models.layers.base import Layer, Values
from ggq.models.layers.feed_forward import FeedForward
from ggq.models.table import Key, Tensor, rows

__all__ = ["ARCHITECTURE", "has_tasks"]

ROTARY = "rotary_emb_base"  # in jina's own form
LAYER = "encoder.layers.{i}."


def has_tasks(config: Mapping[str, Any]) -> bool:
    """Tell whether the checkpoint is jina's own, with an adapter for each of several tasks."""
    return bool(config.get("lora_adaptations"))


def _parametrized(*table: Tensor) -> tuple[Tensor, ...]:
    """Return ``table`` with the names that weights have beside adapters, too."""
    suffix = ".weight"

    def other(name: str) -> str:
        return f"{name.removesuffix(suffix)}.parametrizations.weight.original"

    return tuple(
        row
        if row.fused or not row.hf[0].endswith(suffix)
        else replace(row, fused=(other(row.hf[0]), "copy"))
        for row in table
    )


def _context(config: Mapping[str, Any]) -> int | None:
    """Return how long a text can be: RoBERTa counts its positions after that of padding."""
    given, pad = config.get("max_position_embeddings"), config.get("pad_token_id")
    return given - (1 if pad is None else pad) - 1 if isinstance(given, int) else None


class JinaBertV3(Encoder):
    name = "jina-bert-v3"
    hf_classes = ("JinaEmbeddingsV3Model", "JinaEmbeddingsV3ForMaskedLM", "XLMRobertaModel")
    hf_model_type = "jina_embeddings_v3"
    hf_prefixes = ("", "roberta.")
    rope_types = ("default",)
    keys = (
        *(
            replace(k, hf=(), derive=_context) if k.attr == "n_ctx_train" else k
            for k in ENCODER_KEYS
        ),
        Key("{arch}.rope.freq_base", (ROTARY, "rope_parameters.rope_theta"), "rope_base", "f32"),
    )
    config_defaults = {  # noqa: RUF012 - read only
        "max_position_embeddings": 8194,
        "layer_norm_eps": 1e-5,
        "type_vocab_size": 1,
        "hidden_act": "gelu",
        "rope_theta": 20000.0,
    }
    fixed = {  # noqa: RUF012 - read only
        "hidden_act": ("gelu",),
        "position_embedding_type": ("rotary", "absolute"),  # the latter is a leftover
    }
    reads = (
        *Encoder.reads,
        *("lora_adaptations", "lora_alpha", "lora_dropout_p", "lora_main_params_trainable"),
        *("matryoshka_dimensions", "task_instructions", "truncate_dim", "use_reentrant"),
        *("load_trained_adapters", "emb_pooler", "use_flash_attn"),
    )
    tensors = _parametrized(
        embedding("token_embd", "word", "vocab", role="token_embd"),
        embedding("token_types", "token_type", "token_types", f32=True, role="kept", optional=True),
        *encoder_norm("token_embd_norm", "emb_ln"),
        *rows("attn_qkv", f"{LAYER}mixer.Wqkv", ("q+k+v", "embd"), input="attn_in"),
        *rows("attn_output", f"{LAYER}mixer.out_proj", ("embd", "o"), input="attn_out"),
        *encoder_norm("blk.{i}.attn_output_norm", f"{LAYER}norm1"),
        *rows("ffn_up", f"{LAYER}mlp.fc1", ("ff", "embd"), input="ffn_in"),
        *rows("ffn_down", f"{LAYER}mlp.fc2", ("embd", "ff"), input="ffn_act"),
        *encoder_norm("blk.{i}.layer_output_norm", f"{LAYER}norm2"),
    )

    def suits(self, config: Mapping[str, Any]) -> bool:
        return config.get("model_type") == self.hf_model_type or has_tasks(config)

    def ignores(self, hf_name: str, hp: HParams) -> bool:
        return super().ignores(hf_name, hp) or ".lora_" in hf_name

    def layer(self, values: Values, i: int) -> Layer:
        mixer = Attention.of(
            values, i, rotation(values, "neox"), causal=values["causal"], fused=True
        )
        return Layer(mixer, FeedForward.of(values, i, activation="gelu", gated=False))

    def forward(self, ops: Any, hp: HParams) -> Any:
        return encode(ops, embedded(ops), hp)

    def export_config(self, hp: HParams) -> dict[str, Any]:
        made = super().export_config(hp) | {"max_position_embeddings": hp.n_ctx_train + 2}
        return made | {"pad_token_id": 1}


ARCHITECTURE = JinaBertV3()
