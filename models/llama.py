"""Llama 2 and 3.x, Mistral, Mixtral, SmolLM2, TinyLlama and everything built like them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ggq.models.base import Architecture
from ggq.models.decoder import DECODER_TENSORS, LLAMA_KEYS, logits
from ggq.models.hparams import HParams
from ggq.models.layers import experts
from ggq.models.layers.attention import Attention, rotation
from ggq.models.layers.base import Layer, Values
from ggq.models.layers.experts import Experts
from ggq.models.layers.feed_forward import FeedForward
from ggq.models.layers.linear import rms_norm
from ggq.models.layers.rope import ALL_FACTORS
from ggq.models.table import Key, permuted
from ggq.models.vocabulary import LLAMA_VOCAB

__all__ = ["ARCHITECTURE", "block", "forward"]


def forward(
    ops: Any, hp: HParams, ff_norm: str = "ffn_norm", final_norm: str = "output_norm"
) -> Any:
    """Return the logits of a pre-norm decoder; files call some of its norms otherwise."""
    x = ops.embed("token_embd.weight")
    for i, layer in enumerate(hp.layers):
        x = block(ops, x, layer, hp, ff_norm)
        x = ops.see(x, i + 1) if i < hp.deepstack else x
    return logits(ops, x, hp, final_norm)


def block(ops: Any, x: Any, layer: Layer, hp: HParams, ff_norm: str = "ffn_norm") -> Any:
    """Return what a pre-norm layer makes of ``x``."""
    normed = rms_norm(ops, x, f"{layer.prefix}attn_norm", hp.norm_eps)
    x = ops.add(x, layer.mixer.forward(ops, normed))
    normed = rms_norm(ops, x, f"{layer.prefix}{ff_norm}", hp.norm_eps)
    return ops.add(x, layer.feed.forward(ops, normed))


def _window(config: Mapping[str, Any]) -> int | None:
    """Return the window of Mistral 7B 0.1 and its like, whose layers all have it."""
    mistral = config.get("model_type") in ("mistral", "mixtral")
    return config.get("sliding_window") if mistral else None


class Llama(Architecture):
    name = "llama"
    hf_classes = (
        "LlamaForCausalLM",
        "MistralForCausalLM",
        "LLaMAForCausalLM",
        "MixtralForCausalLM",
        "InternLM3ForCausalLM",
        "IQuestCoderForCausalLM",
        "MobileLLMForCausalLM",
    )
    hf_model_type = "llama"
    peer_factors = ALL_FACTORS
    reads = ("layer_types", "sliding_window", "head_dim", "bias", "share_embedding")

    def conflicts(self, config: Mapping[str, Any]) -> Iterator[tuple[str, Any, str]]:
        """Yield kinds of layers that differ: files of this name have one window or none."""
        kinds, window = config.get("layer_types"), _window(config)
        if isinstance(kinds, list) and config.get("model_type") != "llama":
            wanted = "sliding_attention" if window else "full_attention"
            if set(kinds) - {wanted}:
                yield "layer_types", kinds, f"only {wanted} in every layer is converted"

    keys = (
        *LLAMA_KEYS,
        *experts.KEYS,
        Key("{arch}.attention.sliding_window", (), "window", derive=_window),
    )
    config_defaults = {  # noqa: RUF012 - read only
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
    }
    tensors = permuted((*DECODER_TENSORS, *experts.MIXTRAL_TENSORS))
    vocab = LLAMA_VOCAB

    def layer(self, values: Values, i: int) -> Layer:
        mixer = Attention.of(values, i, rotation(values, "norm"))
        if values["n_expert"]:
            return Layer(mixer, Experts.of(values, i, normalize=True))
        return Layer(mixer, FeedForward.of(values, i))

    def forward(self, ops: Any, hp: HParams) -> Any:
        return forward(ops, hp)

    def export_config(self, hp: HParams) -> dict[str, Any]:
        window = hp.layers[0].memory.window
        if not hp.n_expert and not window:
            return {}
        kind = "Mixtral" if hp.n_expert else "Mistral"
        made = {"architectures": [f"{kind}ForCausalLM"], "model_type": kind.lower()}
        return made | {"sliding_window": window}


ARCHITECTURE = Llama()
