"""gpt-oss: experts with biases and a clamped SwiGLU, sinks, windows on every other layer, YaRN."""

from dataclasses import replace
from typing import Any

from ggq.models import ledger, llama
from ggq.models.base import Architecture
from ggq.models.decoder import DECODER_KEYS, EMBEDDING, HEAD, MIXER_NORM
from ggq.models.hparams import HParams
from ggq.models.layers import attention, experts
from ggq.models.layers.attention import Attention, rotation, window_keys, windowed
from ggq.models.layers.base import Layer, Values
from ggq.models.layers.experts import Experts
from ggq.models.layers.rope import Rope
from ggq.models.table import BLOCK, LAYER, Key, Tensor, changed, norm, rows

__all__ = ["ARCHITECTURE"]

PERIOD = 2
NORM = "post_attention_norm"  # what it is called in GGUF; it precedes the experts


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
        absorbs=None if down else f"{BLOCK}{NORM}.weight",
        part=Experts,
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


ROUTER = rows(
    "ffn_gate_inp",
    "mlp.router",
    ("expert", "embd"),
    role="router",
    input="ffn_in",
    absorbs=NORM,
    part=Experts,
)
SINKS = Tensor(
    f"{BLOCK}attn_sinks.weight",
    (f"{LAYER}self_attn.sinks",),
    ("heads",),
    role="sinks",
    f32=True,
    part=Attention,
)


class GptOss(Architecture):
    name = "gpt-oss"
    hf_classes = ("GptOssForCausalLM",)
    hf_model_type = "gpt_oss"
    fixed = {  # noqa: RUF012 - read only
        "hidden_act": ledger.SILU,
        "swiglu_alpha": (1.702,),
        "swiglu_limit": (7.0,),
        "attention_bias": (True,),
    }
    reads = ("initial_context_length", "experts_per_token", "layer_types")
    rope_truncates = False
    keys = changed(
        (*DECODER_KEYS, *experts.KEYS, *window_keys(PERIOD)),
        Key("{arch}.expert_feed_forward_length", ("intermediate_size",), "n_ff_expert"),
    )
    config_defaults = {  # noqa: RUF012 - read only
        "head_dim": 64,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-5,
        "rope_theta": 150000.0,
        "sliding_window": 128,
    }
    tensors = (
        EMBEDDING,
        *HEAD,
        *MIXER_NORM,
        *attention.TENSORS,
        SINKS,
        *norm(NORM, "post_attention_layernorm"),
        ROUTER[0],
        replace(ROUTER[1], optional=False),
        *_experts("ffn_gate", "gate_up_proj", ("ff_expert", "embd"), "even_columns"),
        *_experts("ffn_up", "gate_up_proj", ("ff_expert", "embd"), "odd_columns"),
        *_experts("ffn_down", "down_proj", ("embd", "ff_expert"), "transposed"),
    )

    def layer(self, values: Values, i: int) -> Layer:
        # truncate: as OpenAI's code has it; no key says so
        rope, window = replace(rotation(values, "neox"), truncate=False), None
        if windowed(values, i, PERIOD):
            window = values["window"]
            rope = Rope.local(values, "neox", rope.dims) or rope
        sinks = f"blk.{i}.attn_sinks.weight"
        mixer = Attention.of(values, i, rope, window=window, sinks=sinks)
        own = {"gating": "softmax_chosen", "bias": None}
        return Layer(mixer, Experts.of(values, i, activation="swiglu_oai", **own))

    def forward(self, ops: Any, hp: HParams) -> Any:
        return llama.forward(ops, hp, ff_norm=NORM)

    def export_config(self, hp: HParams) -> dict[str, Any]:
        kinds = {True: "sliding_attention", False: "full_attention"}
        mixers = [layer.find(Attention) for layer in hp.layers]
        made: dict[str, Any] = {
            "hidden_act": "silu",
            "layer_types": [kinds[bool(m and m.window)] for m in mixers],
        }
        if hp.rope is not None and hp.rope.scaling == "yarn":
            made["rope_scaling"] = hp.rope.settings() | {"truncate": False}
        return made


ARCHITECTURE = GptOss()
