"""Mamba-2 and Mamba-Codestral: every layer a selective state space, nothing else."""

from collections.abc import Iterator, Mapping
from typing import Any

from ggq.models import ledger
from ggq.models.base import Architecture
from ggq.models.decoder import EMBEDDING, HEAD, MIXER_NORM, VOCAB_KEY, logits
from ggq.models.hparams import HParams
from ggq.models.layers import mamba2
from ggq.models.layers.base import Layer, Values
from ggq.models.layers.linear import rms_norm
from ggq.models.layers.mamba2 import Mamba2
from ggq.models.table import Key, renamed

__all__ = ["ARCHITECTURE", "HF_NAMES", "SIZE_KEYS", "forward"]

ANY_CONTEXT = 1 << 20  # states do not grow; what llama.cpp's converter writes
SIZE_KEYS = (  # widths of parts that no layer has are 0, as readers ask for them
    Key("{arch}.context_length", (), "n_ctx_train", required=True, derive=lambda c: ANY_CONTEXT),
    Key("{arch}.embedding_length", ("hidden_size",), "n_embd", required=True),
    Key("{arch}.feed_forward_length", (), None, derive=lambda c: 0),
    Key("{arch}.attention.head_count", (), "n_head", default=0, derive=lambda c: 0),
    Key("{arch}.block_count", ("num_hidden_layers",), "n_layer", required=True),
    Key(
        "{arch}.attention.layer_norm_rms_epsilon", ("layer_norm_epsilon",), "norm_eps", "f32", True
    ),
    VOCAB_KEY,
)
HF_NAMES = {
    "model.embed_tokens": "backbone.embeddings",
    "model.norm": "backbone.norm_f",
    "model.layers": "backbone.layers",
    "input_layernorm": "norm",
    ".mamba.": ".mixer.",
}


def forward(ops: Any, hp: HParams) -> Any:
    """Return the logits of a decoder whose layers are one part each, behind a norm."""
    x = ops.embed("token_embd.weight")
    for layer in hp.layers:
        normed = rms_norm(ops, x, f"{layer.prefix}attn_norm", hp.norm_eps)
        x = ops.add(x, layer.mixer.forward(ops, normed))
    return logits(ops, x, hp)


class Mamba2Model(Architecture):
    name = "mamba2"
    hf_classes = ("Mamba2ForCausalLM",)
    hf_model_type = "mamba2"
    hf_prefixes = ("", "model.")
    fixed = {  # noqa: RUF012 - read only
        "hidden_act": ledger.SILU,
        "use_bias": (False,),
        "rescale_prenorm_residual": (False,),  # transformers rescales what it loads, too
        "rms_norm": (True,),
    }
    reads = (
        *("num_heads", "head_dim", "norm_before_gate", "intermediate_size"),
        *("time_step_rank", "time_step_min", "time_step_max", "time_step_floor"),
        *("residual_in_fp32", "time_step_limit"),
    )
    keys = (
        *SIZE_KEYS,
        Key("{arch}.ssm.conv_kernel", ("conv_kernel",), "conv_kernel", required=True),
        Key("{arch}.ssm.inner_size", (), "ssm_inner", required=True, derive=lambda c: _inner(c)),
        Key("{arch}.ssm.state_size", ("state_size",), "ssm_state", required=True),
        Key("{arch}.ssm.time_step_rank", ("num_heads",), "ssm_heads", required=True),
        Key("{arch}.ssm.group_count", ("n_groups",), "ssm_groups", required=True),
    )
    config_defaults = {  # noqa: RUF012 - read only
        "conv_kernel": 4,
        "expand": 2,
        "head_dim": 64,
        "layer_norm_epsilon": 1e-5,
        "n_groups": 8,
        "num_heads": 128,
        "state_size": 128,
    }
    tensors = renamed((EMBEDDING, *HEAD, *MIXER_NORM, *mamba2.TENSORS), HF_NAMES)

    def conflicts(self, config: Mapping[str, Any]) -> Iterator[tuple[str, Any, str]]:
        yield from mamba2.limits(config)
        if config["num_heads"] * config["head_dim"] != _inner(config):
            what = f"heads of {config['head_dim']} columns are not {_inner(config)} together"
            yield "num_heads", config["num_heads"], what

    def layer(self, values: Values, i: int) -> Layer:
        return Layer(Mamba2.of(values, i))

    def forward(self, ops: Any, hp: HParams) -> Any:
        return forward(ops, hp)

    def export_config(self, hp: HParams) -> dict[str, Any]:
        part = hp.find(Mamba2)
        assert part is not None
        return {"head_dim": part.head_dim, "expand": part.inner // hp.n_embd, "use_bias": False}


def _inner(config: Mapping[str, Any]) -> int:
    return int(config["expand"] * config["hidden_size"])


ARCHITECTURE = Mamba2Model()
