"""Command R and Aya 23: a layer's two parts side by side under one LayerNorm without bias."""

from typing import Any

from ggq.models import ledger
from ggq.models.base import Architecture
from ggq.models.decoder import DECODER_KEYS, EMBEDDING, HEAD, MIXER_NORM, unembed
from ggq.models.hparams import HParams
from ggq.models.layers import attention, feed_forward
from ggq.models.layers.attention import Attention, rotation
from ggq.models.layers.base import Layer, Values
from ggq.models.layers.feed_forward import FeedForward
from ggq.models.layers.rope import scaling_or_none
from ggq.models.table import Key, beside, changed

__all__ = ["ARCHITECTURE", "COHERE_KEYS", "COHERE_TENSORS", "Cohere", "forward"]

COHERE_KEYS = changed(
    DECODER_KEYS,
    Key("{arch}.attention.layer_norm_epsilon", ("layer_norm_eps",), "norm_eps", "f32", True),
    Key("{arch}.logit_scale", ("logit_scale",), "logit_scale", "f32", True),
    Key("{arch}.rope.scaling.type", (), "rope_scaling", "str", derive=scaling_or_none),
    without=("{arch}.attention.layer_norm_rms_epsilon",),
)
COHERE_TENSORS = (
    EMBEDDING,
    HEAD[0],
    *MIXER_NORM,
    *attention.TENSORS,
    *beside(feed_forward.TENSORS),
)


def forward(ops: Any, hp: HParams) -> Any:
    """Return the logits of a decoder whose layers' two parts see the same and are added."""

    def normed(x: Any, name: str) -> Any:
        return ops.norm(x, f"{name}.weight", hp.norm_eps, kind="layer")

    x = ops.embed("token_embd.weight")
    for layer in hp.layers:
        seen = normed(x, f"{layer.prefix}attn_norm")
        x = ops.add(x, layer.mixer.forward(ops, seen))
        x = ops.add(x, layer.feed.forward(ops, seen))
    return unembed(ops, normed(ops.gather(x), "output_norm"), hp)


class Cohere(Architecture):
    """What Command R and Cohere 2 share."""

    tensors = COHERE_TENSORS

    def forward(self, ops: Any, hp: HParams) -> Any:
        return forward(ops, hp)

    def ignores(self, hf_name: str, hp: HParams) -> bool:
        return super().ignores(hf_name, hp) or hf_name.endswith("lm_head.weight")  # always tied


class CommandR(Cohere):
    name = "command-r"
    hf_classes = ("CohereForCausalLM",)
    hf_model_type = "cohere"
    keys = changed(
        COHERE_KEYS,
        Key(
            "{arch}.context_length",
            ("model_max_length", "max_position_embeddings"),  # the latter is 8192 where it is 128k
            "n_ctx_train",
            required=True,
        ),
    )
    config_defaults = {  # noqa: RUF012 - read only
        "max_position_embeddings": 8192,
        "layer_norm_eps": 1e-5,
        "logit_scale": 0.0625,
        "rope_theta": 500000.0,
    }
    fixed = {  # noqa: RUF012 - read only
        "hidden_act": ledger.SILU,
        "tie_word_embeddings": (True,),
        "use_qk_norm": (False,),
    }

    def layer(self, values: Values, i: int) -> Layer:
        return Layer(Attention.of(values, i, rotation(values, "norm")), FeedForward.of(values, i))

    def export_config(self, hp: HParams) -> dict[str, Any]:
        return {"max_position_embeddings": hp.n_ctx_train}


ARCHITECTURE = CommandR()
