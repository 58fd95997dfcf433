"""BERT and what was made of it: sentence-transformers, BGE, E5, GTE, MiniLM."""

from __future__ import annotations

from typing import Any

from ggq.models.base import Tensor
from ggq.models.encoder import ENCODER_KEYS, Encoder, encoder_norm, encoder_rows

__all__ = ["ARCHITECTURE"]

LAYER = "encoder.layer.{i}."
SELF = f"{LAYER}attention.self."


def _embedding(gguf: str, hf: str, rows: str, **more: Any) -> Tensor:
    return Tensor(f"{gguf}.weight", (f"embeddings.{hf}_embeddings.weight",), (rows, "embd"), **more)


class Bert(Encoder):
    name = "bert"
    hf_classes = ("BertModel", "BertForMaskedLM")
    hf_model_type = "bert"
    hf_prefixes = ("", "bert.")
    keys = ENCODER_KEYS
    config_defaults = {  # noqa: RUF012 - read only
        "max_position_embeddings": 512,
        "layer_norm_eps": 1e-12,
        "type_vocab_size": 2,
        "hidden_act": "gelu",
    }
    needs = {  # noqa: RUF012 - read only
        "hidden_act": "gelu",
        "position_embedding_type": "absolute",
        "is_decoder": False,
    }
    tensors = (
        _embedding("token_embd", "word", "vocab", role="token_embd"),
        _embedding("position_embd", "position", "positions", f32=True),
        _embedding("token_types", "token_type", "token_types", f32=True, optional=True),
        *encoder_norm("token_embd_norm", "embeddings.LayerNorm"),
        *encoder_rows("attn_q", f"{SELF}query", ("q", "embd"), "attn_in"),
        *encoder_rows("attn_k", f"{SELF}key", ("k", "embd"), "attn_in"),
        *encoder_rows("attn_v", f"{SELF}value", ("v", "embd"), "attn_in"),
        *encoder_rows("attn_output", f"{LAYER}attention.output.dense", ("embd", "o"), "attn_out"),
        *encoder_norm("blk.{i}.attn_output_norm", f"{LAYER}attention.output.LayerNorm"),
        *encoder_rows("ffn_up", f"{LAYER}intermediate.dense", ("ff", "embd"), "ffn_in"),
        *encoder_rows("ffn_down", f"{LAYER}output.dense", ("embd", "ff"), "ffn_act"),
        *encoder_norm("blk.{i}.layer_output_norm", f"{LAYER}output.LayerNorm"),
    )

    def finish(self, values: dict[str, Any]) -> dict[str, Any]:
        layers = (False,) * min(values.get("n_layer") or 0, 4096)
        return values | {"rope_layers": layers, "activation": "gelu"}


ARCHITECTURE = Bert()
