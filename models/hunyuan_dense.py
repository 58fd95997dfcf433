"""Hunyuan dense (0.5B to 7B): like llama, queries and keys are normed after their rotation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ggq.models import ledger, llama
from ggq.models.base import Architecture
from ggq.models.decoder import DECODER_KEYS, DECODER_TENSORS, head_width, with_head_width
from ggq.models.hparams import HParams
from ggq.models.layers import attention
from ggq.models.layers.attention import Attention, rotation
from ggq.models.layers.base import Layer, Values
from ggq.models.layers.feed_forward import FeedForward
from ggq.models.table import Key, changed, renamed

__all__ = ["ARCHITECTURE", "HUNYUAN_KEYS", "QK_NORMS"]

CONTEXT = 262144  # what the files with a stretched base can do, whatever they say
QK_NORMS = renamed(attention.QK_NORMS, {"q_norm": "query_layernorm", "k_norm": "key_layernorm"})


def _alpha(config: Mapping[str, Any]) -> float | None:
    """Return what stretches the rotation's base, None where nothing does."""
    rope = config["rope_parameters"]
    return rope.get("alpha") if rope.get("rope_type") == "dynamic" else None


def _base(config: Mapping[str, Any]) -> Any:
    """Return the base, stretched by alpha ** (d / (d - 2)) for heads of d columns."""
    base, alpha, width = (
        config["rope_parameters"].get("rope_theta"),
        _alpha(config),
        head_width(config),
    )
    if not alpha or not width or base is None:
        return base
    return float(base * alpha ** (width / (width - 2)))


def _context(config: Mapping[str, Any]) -> int | None:
    return CONTEXT if _alpha(config) else config.get("max_position_embeddings")


HUNYUAN_KEYS = changed(
    with_head_width(DECODER_KEYS),
    Key("{arch}.context_length", (), "n_ctx_train", required=True, derive=_context),
    Key("{arch}.rope.freq_base", (), "rope_base", "f32", derive=_base),
)


class HunyuanDense(Architecture):
    name = "hunyuan-dense"
    hf_classes = ("HunYuanDenseV1ForCausalLM", "HunYuanDenseV1Model")
    hf_model_type = "hunyuan_v1_dense"
    keys = HUNYUAN_KEYS
    config_defaults = {  # noqa: RUF012 - read only
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
    }
    fixed = {  # noqa: RUF012 - read only
        "hidden_act": ledger.SILU,
        "use_cla": (False,),
        "num_experts": (1,),
        "norm_type": ("rms", "hf_rms", "fused"),
        "use_rotary_pos_emb": (True,),
        "position_embedding_xdrope": (False,),
    }
    reads = (  # names of tokens and what other parts of Tencent's code read
        *("max_position_embeddings", "attention_head_dim", "cla_share_factor", "class_num"),
        *("dense_list", "eod_token_id", "im_end_id", "im_newline_id", "im_start_id", "pad_id"),
        *("mask_init_id", "org_vocab_size", "pool_type", "text_end_id", "text_start_id"),
        "add_classification_head",
    )
    rope_types = ("default", "dynamic")
    rope_reads = ("alpha",)
    tensors = (*DECODER_TENSORS, *QK_NORMS)

    def layer(self, values: Values, i: int) -> Layer:
        rope = rotation(values, "neox")
        mixer = Attention.of(values, i, rope, norms="head", rotates_first=True)
        return Layer(mixer, FeedForward.of(values, i))

    def forward(self, ops: Any, hp: HParams) -> Any:
        return llama.forward(ops, hp)

    def export_config(self, hp: HParams) -> dict[str, Any]:
        return {"max_position_embeddings": hp.n_ctx_train}


ARCHITECTURE = HunyuanDense()
