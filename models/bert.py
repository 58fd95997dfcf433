"""BERT, RoBERTa and what was made of them: sentence-transformers, BGE, E5, GTE, CamemBERT."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from ggq.models.encoder import ENCODER_KEYS, Encoder, embedded, embedding, encode, encoder_norm
from ggq.models.hparams import HParams
from ggq.models.jina_bert_v3 import has_tasks
from ggq.models.layers.attention import Attention
from ggq.models.layers.base import Layer, Values
from ggq.models.layers.feed_forward import FeedForward
from ggq.models.pooled import classifier_rows
from ggq.models.table import Tensor, rows

__all__ = ["ARCHITECTURE"]

LAYER = "encoder.layer.{i}."
SELF, AFTER = f"{LAYER}attention.self.", f"{LAYER}attention.output."
ROBERTA = ("roberta", "xlm-roberta", "camembert")  # model types; their positions begin late
ROBERTA_CLASSES = ("Roberta", "XLMRoberta", "Camembert")


# What jina-reranker-v2 calls its tensors, an XLM-RoBERTa otherwise.
JINA_NAMES = {
    "encoder.layer.": "encoder.layers.",
    "embeddings.LayerNorm": "emb_ln",
    "attention.output.dense": "mixer.out_proj",
    "attention.output.LayerNorm": "norm1",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
    "output.LayerNorm": "norm2",
}


def _in_one(table: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Return the rows of q, k and v, which jina's checkpoints have in one tensor of each layer."""
    joined = "encoder.layers.{i}.mixer.Wqkv."

    def form(row: Tensor) -> tuple[str, str]:
        _, name, kind = row.gguf.rsplit(".", 2)
        return f"{joined}{kind}", f"part_{name[-1]}"

    return tuple(replace(row, fused=form(row)) for row in table)


def offset(config: Mapping[str, Any]) -> int:
    """Return the position of a text's first token: RoBERTa's come after that of padding."""
    classes = config.get("architectures") or ("",)
    if config.get("model_type") in ROBERTA or str(classes[0]).startswith(ROBERTA_CLASSES):
        pad = config.get("pad_token_id")
        return (1 if pad is None else pad) + 1
    return 0


def _context(config: Mapping[str, Any]) -> int | None:
    """Return how many positions a text can have."""
    given = config.get("max_position_embeddings")
    return given - offset(config) if isinstance(given, int) else None


class Bert(Encoder):
    name = "bert"
    hf_classes = (
        *("BertModel", "BertForMaskedLM", "BertForSequenceClassification"),
        *("RobertaModel", "RobertaForMaskedLM", "RobertaForSequenceClassification"),
        *("XLMRobertaModel", "XLMRobertaForMaskedLM", "XLMRobertaForSequenceClassification"),
        *("CamembertModel", "CamembertForMaskedLM", "CamembertForSequenceClassification"),
    )
    hf_model_type = "bert"
    hf_prefixes = ("", "bert.", "roberta.")
    aliases = JINA_NAMES
    keys = tuple(
        replace(k, hf=(), derive=_context) if k.attr == "n_ctx_train" else k for k in ENCODER_KEYS
    )
    config_defaults = {  # noqa: RUF012 - read only
        "max_position_embeddings": 512,
        "layer_norm_eps": 1e-12,
        "type_vocab_size": 2,
        "hidden_act": "gelu",
    }
    fixed = {  # noqa: RUF012 - read only
        "hidden_act": ("gelu",),
        "position_embedding_type": ("absolute",),
        "is_decoder": (False,),
    }
    tensors = (
        embedding("token_embd", "word", "vocab", role="token_embd"),
        embedding(
            *("position_embd", "position", "positions"),
            transform="from_position",
            f32=True,
            role="kept",
        ),
        embedding("token_types", "token_type", "token_types", f32=True, role="kept", optional=True),
        *encoder_norm("token_embd_norm", "embeddings.LayerNorm"),
        *_in_one(
            (
                *rows("attn_q", f"{SELF}query", ("q", "embd"), input="attn_in"),
                *rows("attn_k", f"{SELF}key", ("k", "embd"), input="attn_in"),
                *rows("attn_v", f"{SELF}value", ("v", "embd"), input="attn_in"),
            )
        ),
        *rows("attn_output", f"{AFTER}dense", ("embd", "o"), input="attn_out"),
        *encoder_norm("blk.{i}.attn_output_norm", f"{AFTER}LayerNorm"),
        *rows("ffn_up", f"{LAYER}intermediate.dense", ("ff", "embd"), input="ffn_in"),
        *rows("ffn_down", f"{LAYER}output.dense", ("embd", "ff"), input="ffn_act"),
        *encoder_norm("blk.{i}.layer_output_norm", f"{LAYER}output.LayerNorm"),
    )
    # BERT's hidden layer is its pooler; RoBERTa's is the classifier's own
    classifier = classifier_rows(
        ("classifier", "classifier.out_proj"), ("pooler.dense", "classifier.dense")
    )

    def suits(self, config: Mapping[str, Any]) -> bool:
        return not has_tasks(config)

    def conflicts(self, config: Mapping[str, Any]) -> Iterator[tuple[str, Any, str]]:
        context = _context(config)
        if context is None or context < 1:
            given = config.get("max_position_embeddings")
            yield "max_position_embeddings", given, "too few for a first token"

    def _values_hf(self, config: Mapping[str, Any]) -> dict[str, Any]:
        return super()._values_hf(config) | {"first_position": offset(self.config(config))}

    def layer(self, values: Values, i: int) -> Layer:
        mixer = Attention.of(values, i, None, causal=values["causal"])
        return Layer(mixer, FeedForward.of(values, i, activation="gelu", gated=False))

    def forward(self, ops: Any, hp: HParams) -> Any:
        x = embedded(ops)
        return encode(ops, ops.add(x, ops.embed("position_embd.weight", of="positions")), hp)

    def export_config(self, hp: HParams) -> dict[str, Any]:
        return super().export_config(hp) | {"max_position_embeddings": hp.n_ctx_train}


ARCHITECTURE = Bert()
