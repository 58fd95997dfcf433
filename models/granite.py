"""IBM Granite 3: like llama, with factors on embeddings, residuals, scores and logits."""

from typing import Any

from ggq.models.base import Architecture
from ggq.models.decoder import DECODER_TENSORS, LLAMA_KEYS, logits
from ggq.models.hparams import HParams
from ggq.models.layers.attention import Attention, rotation
from ggq.models.layers.base import Layer, Values
from ggq.models.layers.feed_forward import FeedForward
from ggq.models.layers.linear import rms_norm
from ggq.models.layers.rope import ALL_FACTORS
from ggq.models.table import Key, permuted
from ggq.models.vocabulary import LLAMA_VOCAB

__all__ = ["ARCHITECTURE", "FACTOR_KEYS", "Granite", "forward", "inverted"]

FACTOR_KEYS = (
    Key("{arch}.attention.scale", ("attention_multiplier",), "attn_scale", "f32"),
    Key("{arch}.embedding_scale", ("embedding_multiplier",), "embedding_scale", "f32"),
    Key("{arch}.residual_scale", ("residual_multiplier",), "residual_scale", "f32"),
    Key("{arch}.logit_scale", ("logits_scaling",), "logit_scale", "f32", required=True),
)


def inverted(values: Values) -> None:
    """Make a factor of what HF and GGUF store: a number that logits are divided by."""
    divisor = values.get("logit_scale")
    values["logit_scale"] = 1.0 / divisor if divisor else None


def forward(ops: Any, hp: HParams) -> Any:
    """Return the logits of a pre-norm decoder with scaled embeddings and residuals."""

    def scaled(x: Any, factor: float | None) -> Any:
        return ops.scale(x, factor) if factor else x

    x = scaled(ops.embed("token_embd.weight"), hp.embedding_scale)
    for layer in hp.layers:
        normed = rms_norm(ops, x, f"{layer.prefix}attn_norm", hp.norm_eps)
        x = ops.add(x, scaled(layer.mixer.forward(ops, normed), hp.residual_scale))
        normed = rms_norm(ops, x, f"{layer.prefix}ffn_norm", hp.norm_eps)
        x = ops.add(x, scaled(layer.feed.forward(ops, normed), hp.residual_scale))
    return logits(ops, x, hp)


class Granite(Architecture):
    name = "granite"
    hf_classes = ("GraniteForCausalLM",)
    hf_model_type = "granite"
    peer_factors = ALL_FACTORS
    keys = (*LLAMA_KEYS, *FACTOR_KEYS)
    config_defaults = {  # noqa: RUF012 - read only
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "attention_multiplier": 1.0,
        "logits_scaling": 1.0,
    }
    tensors = permuted(DECODER_TENSORS)
    vocab = LLAMA_VOCAB

    def layer(self, values: Values, i: int) -> Layer:
        return Layer(Attention.of(values, i, rotation(values, "norm")), FeedForward.of(values, i))

    def forward(self, ops: Any, hp: HParams) -> Any:
        return forward(ops, hp)

    def complete(self, values: Values) -> None:
        inverted(values)

    def ignores(self, hf_name: str, hp: HParams) -> bool:
        speech = hf_name.startswith(("encoder.", "projector."))  # of Granite Speech
        return super().ignores(hf_name, hp) or speech


ARCHITECTURE = Granite()
