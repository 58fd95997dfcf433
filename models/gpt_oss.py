"""gpt-oss: experts with biases and a clamped SwiGLU, sinks, windows on every other layer, YaRN."""

from dataclasses import replace
from typing import Any

from ggq.models.base import Key, Tensor
from ggq.models.blocks import Decoder
from ggq.models.keys import DECODER_KEYS, EXPERT_KEYS, WINDOW_KEYS, changed
from ggq.models.tables import DECODER_TENSORS, POST_NORMS
from ggq.models.tables import changed as changed_rows

__all__ = ["ARCHITECTURE"]

BLOCK, LAYER = "blk.{i}.", "model.layers.{i}."
NORM = f"{BLOCK}post_attention_norm.weight"  # what it is called in GGUF; it precedes the experts
DENSE = tuple(f"ffn_{n}.{s}" for n in ("gate", "up", "down") for s in ("weight", "bias"))


def _experts(name: str, hf: str, shape: tuple[str, str], kind: str) -> tuple[Tensor, Tensor]:
    """Return the rows of a stack of experts and of its biases."""
    down = name == "ffn_down"
    weight = Tensor(
        f"{BLOCK}{name}_exps.weight",
        (f"{LAYER}mlp.experts.{hf}",),
        ("expert", *shape),
        transform=kind,
        role=name,
        input="experts_act" if down else "ffn_in",
        absorbs=None if down else NORM,
    )
    bias = replace(
        weight,
        gguf=f"{BLOCK}{name}_exps.bias",
        hf=(f"{LAYER}mlp.experts.{hf}_bias",),
        shape=("expert", shape[0]),
        transform="copy" if down else kind,
        role="bias",
        input=None,
        absorbs=None,
        f32=True,
    )
    return weight, bias


class GptOss(Decoder):
    name = "gpt-oss"
    hf_classes = ("GptOssForCausalLM",)
    hf_model_type = "gpt_oss"
    rope_kind = "neox"
    exports = False
    window_period = 2
    keys = changed(
        (*DECODER_KEYS, *EXPERT_KEYS, *WINDOW_KEYS),
        Key("{arch}.expert_feed_forward_length", ("intermediate_size",), "n_ff_expert"),
    )
    config_defaults = {  # noqa: RUF012 - read only
        "head_dim": 64,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-5,
        "rope_theta": 150000.0,
        "sliding_window": 128,
    }
    tensors = changed_rows(
        DECODER_TENSORS,
        POST_NORMS[0],
        Tensor(
            f"{BLOCK}attn_sinks.weight",
            (f"{LAYER}self_attn.sinks",),
            ("heads",),
            role="sinks",
            f32=True,
        ),
        Tensor(
            f"{BLOCK}ffn_gate_inp.weight",
            (f"{LAYER}mlp.router.weight",),
            ("expert", "embd"),
            role="router",
            input="ffn_in",
            absorbs=NORM,
        ),
        Tensor(
            f"{BLOCK}ffn_gate_inp.bias",
            (f"{LAYER}mlp.router.bias",),
            ("expert",),
            role="bias",
            f32=True,
        ),
        *_experts("ffn_gate", "gate_up_proj", ("ff_expert", "embd"), "even_columns"),
        *_experts("ffn_up", "gate_up_proj", ("ff_expert", "embd"), "odd_columns"),
        *_experts("ffn_down", "down_proj", ("embd", "ff_expert"), "transposed"),
        without=("ffn_norm.weight", *DENSE),
    )

    def finish(self, values: dict[str, Any]) -> dict[str, Any]:
        made = {"activation": "swiglu_oai", "gating": "softmax_chosen"}
        rope = replace(values["rope"], truncate=False)  # as OpenAI's code has it; no key says so
        return values | made | {"rope": rope}


ARCHITECTURE = GptOss()
