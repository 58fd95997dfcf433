"""Mistral's own form of its models: params.json and consolidated.safetensors, with their names.

Layout: github.com/mistralai/mistral-inference. Queries and keys lie in pairs of neighbours, as
Meta's do; the config and the tensors that come out are those of the Hugging Face form.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ggq.converters.formats.base import Rows, TensorLike, numbers
from ggq.errors import FormatError, ModelError, printable

__all__ = ["PARAMS", "config", "in_halves", "is_own", "renamed"]

PARAMS = "params.json"
EMBEDDING = "tok_embeddings.weight"
OUTER = {
    EMBEDDING: "model.embed_tokens.weight",
    "norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
INNER = {  # of one layer; a pattern's first group is kept
    r"attention\.w([qkvo])\.": r"self_attn.{}_proj.",
    r"attention_norm\.": "input_layernorm.",
    r"ffn_norm\.": "post_attention_layernorm.",
    r"feed_forward\.w1\.": "mlp.gate_proj.",
    r"feed_forward\.w2\.": "mlp.down_proj.",
    r"feed_forward\.w3\.": "mlp.up_proj.",
    r"(?:feed_forward|block_sparse_moe)\.gate\.": "block_sparse_moe.gate.",
    r"(?:feed_forward|block_sparse_moe)\.experts\.(\d+\.w[123])\.": "block_sparse_moe.experts.{}.",
}
SCALES = {"qscale_weight": "weight_scale", "qscale_act": "input_scale"}
IMAGES = ("vision_encoder.", "vision_language_adapter.", "pre_mm_projector_norm.", "patch_merger.")
SOUND = ("mm_whisper_embeddings.", "mm_streams_embeddings.", "whisper_encoder.")
SAME = {  # settings by the names that config.json has for them
    "dim": "hidden_size", "n_layers": "num_hidden_layers", "head_dim": "head_dim",
    "hidden_dim": "intermediate_size", "n_heads": "num_attention_heads",
    "n_kv_heads": "num_key_value_heads", "norm_eps": "rms_norm_eps", "vocab_size": "vocab_size",
    "rope_theta": "rope_theta", "sliding_window": "sliding_window",
    "tied_embeddings": "tie_word_embeddings",
}  # fmt: skip
NEEDED = ("dim", "n_layers", "hidden_dim", "n_heads", "norm_eps", "vocab_size")
CONTEXTS = ("max_position_embeddings", "max_seq_len")
CONTEXT = 128_000  # what Mistral's programs take where nothing says it
SILENT = ("use_biases", "causal", "model_type", "architecture", "ragged_attention", "use_cache")
PARTS = ("vision_encoder", "multimodal")
OBJECTS = ("moe", "yarn", "llama_4_scaling", "quantization")
READ = (*SAME, *CONTEXTS, *SILENT, *PARTS, *OBJECTS)


def is_own(names: Iterable[str]) -> bool:
    """Tell whether a checkpoint's tensors are called as Mistral calls them."""
    return EMBEDDING in names


def config(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return config.json's settings for params.json; ModelError names what is not read."""
    for name, value in params.items():
        if name not in READ and value not in (None, False):
            raise ModelError(
                f"{PARAMS}: {printable(name)} {printable(repr(value), 60)} is not read"
            )
    for name in OBJECTS:
        if params.get(name) is not None and not (
            isinstance(params[name], Mapping) and params[name]
        ):
            raise ModelError(f"{PARAMS}: {name} is {printable(repr(params[name]), 60)}, no object")
    for name in NEEDED:
        if params.get(name) is None:
            raise ModelError(f"{PARAMS} has no {name}")
    if params.get("use_biases") or params.get("causal") is False:
        raise ModelError(f"{PARAMS}: biases, or attention to what follows, are not read")
    found = {SAME[name]: params[name] for name in SAME if params.get(name) is not None}
    context = next((params[name] for name in CONTEXTS if params.get(name)), CONTEXT)
    found |= {"architectures": ["MistralForCausalLM"], "model_type": "mistral"}
    found |= {"max_position_embeddings": context, "hidden_act": "silu"}
    found.setdefault("tie_word_embeddings", False)
    if isinstance(moe := params.get("moe"), Mapping):
        found |= {"architectures": ["MixtralForCausalLM"], "model_type": "mixtral"}
        found["num_local_experts"] = moe.get("num_experts")
        found["num_experts_per_tok"] = moe.get("num_experts_per_tok")
    if isinstance(yarn := params.get("yarn"), Mapping):
        found |= _yarn(found, yarn, params.get("llama_4_scaling"))
    if isinstance(quantized := params.get("quantization"), Mapping):
        found["quantization_config"] = _quantization(quantized)
    return found


def _yarn(found: Mapping[str, Any], yarn: Mapping[str, Any], scaling: Any) -> dict[str, Any]:
    """Return the settings of Ministral 3 and its like, whose contexts are stretched."""
    if found["model_type"] != "mistral":
        raise ModelError(f"{PARAMS}: yarn is read of dense models only")
    if yarn.get("apply_scale") not in (None, False, True):
        raise ModelError(f"{PARAMS}: yarn.apply_scale {printable(repr(yarn['apply_scale']))}")
    rope: dict[str, Any] = {
        "rope_type": "yarn",
        "rope_theta": found.get("rope_theta"),
        "factor": yarn.get("factor"),
        "original_max_position_embeddings": yarn.get("original_max_position_embeddings"),
        "beta_fast": yarn.get("beta"),
        "beta_slow": yarn.get("alpha"),
        "mscale": 1.0,
        "mscale_all_dim": 0.0 if yarn.get("apply_scale") else 1.0,
    }
    if isinstance(scaling, Mapping):
        rope["llama_4_scaling_beta"] = scaling.get("beta")
    missing = [name for name, value in rope.items() if value is None]
    if missing:
        raise ModelError(f"{PARAMS}: yarn says no {missing[0]}")
    made = {"architectures": ["Ministral3ForCausalLM"], "model_type": "ministral3"}
    return {**made, "rope_parameters": rope}


def _quantization(said: Mapping[str, Any]) -> dict[str, Any]:
    kind = said.get("qformat_weight")
    if kind != "fp8_e4m3":
        raise ModelError(
            f"{PARAMS}: quantization {printable(repr(kind))} is not read, only fp8_e4m3"
        )
    return {"quant_method": "fp8"}


def renamed(tensors: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return the text model's tensors by their usual names, and what is left out in words."""
    made: dict[str, Any] = {}
    left = []
    for name, tensor in tensors.items():
        if name.startswith((*IMAGES, *SOUND)):
            left.append(name)
            continue
        called = _called(name)
        made[called] = replace(tensor, name=called)
    if not left:
        return made, []
    what = f"{len(left)} tensors for images or sound are left out, such as {printable(left[0])}"
    return made, [what]


def _called(name: str) -> str:
    """Return the usual name of a tensor; FormatError where it is none of a text model."""
    if name in OUTER:
        return OUTER[name]
    if match := re.fullmatch(r"layers\.(\d{1,4})\.(.+\.)(\w+)", name):
        layer, inner, kind = match.groups()
        for pattern, usual in INNER.items():
            if found := re.fullmatch(pattern, inner):
                return (
                    f"model.layers.{layer}.{usual.format(*found.groups())}{SCALES.get(kind, kind)}"
                )
    raise FormatError(f"tensor {printable(name)} is not one of Mistral's own form")


class Halves:
    """A matrix of queries or keys, each head's even rows first, then its odd ones."""

    dtype = "F32"

    def __init__(self, tensor: TensorLike, n_head: int) -> None:
        self.name, self.shape = tensor.name, tensor.shape
        self.dtype = tensor.dtype
        self._tensor = tensor
        self._order = np.arange(tensor.shape[0]).reshape(n_head, -1, 2).swapaxes(1, 2).reshape(-1)

    def read(self, rows: Rows | tuple[Rows, Rows]) -> np.ndarray:
        if isinstance(rows, tuple):
            return self._tensor.read((self._order[rows[0]], rows[1]))
        return self._tensor.read(self._order[numbers(rows, len(self._order))])


def in_halves(
    tensors: Mapping[str, TensorLike], config: Mapping[str, Any]
) -> dict[str, TensorLike]:
    """Return the tensors with queries and keys in the order of the Hugging Face form."""
    counts: dict[str, Any] = {"q_proj": config.get("num_attention_heads")}
    counts["k_proj"] = config.get("num_key_value_heads") or counts["q_proj"]
    made = dict(tensors)
    for name, tensor in tensors.items():
        kind = name.removesuffix(".weight").rpartition(".")[2]
        if kind not in counts or not name.endswith(".weight"):
            continue
        n_head = counts[kind]
        counted = isinstance(n_head, int) and n_head > 0
        if not counted or len(tensor.shape) != 2 or tensor.shape[0] % (2 * n_head):
            what = f"tensor {printable(name)} has shape {tensor.shape}"
            raise FormatError(f"{what}, no pairs of rows for {printable(repr(n_head))} heads")
        made[name] = Halves(tensor, n_head)
    return made
