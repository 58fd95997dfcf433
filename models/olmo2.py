"""OLMo 2 and 3: norms after attention and feed-forward, none before; q/k norms over all heads.

Three of four layers of OLMo 3 have a window; no scaling of positions applies to these.
"""

from collections.abc import Mapping
from typing import Any

from ggq.models.base import Architecture
from ggq.models.decoder import DECODER_KEYS, EMBEDDING, HEAD, logits
from ggq.models.hparams import HParams
from ggq.models.layers import attention, feed_forward
from ggq.models.layers.attention import Attention, listed_windows, rotation, windowed
from ggq.models.layers.base import Layer, Values
from ggq.models.layers.feed_forward import FeedForward
from ggq.models.layers.linear import rms_norm
from ggq.models.layers.rope import LOCAL_KEY, Rope
from ggq.models.table import Key, absorbed_by, norm

__all__ = ["ARCHITECTURE", "TENSORS", "forward"]

PERIOD = 4  # of OLMo 3's layers without a window, where the config lists none
TENSORS = (
    EMBEDDING,
    *HEAD,
    *absorbed_by(
        (*attention.TENSORS, *feed_forward.TENSORS), {"attn_norm": None, "ffn_norm": None}
    ),
    *attention.WHOLE_NORMS,
    *norm("post_attention_norm", "post_attention_layernorm"),
    *norm("post_ffw_norm", "post_feedforward_layernorm"),
)


def forward(ops: Any, hp: HParams) -> Any:
    """Return the logits of a post-norm decoder."""
    x = ops.embed("token_embd.weight")
    for layer in hp.layers:
        y = layer.mixer.forward(ops, x)
        x = ops.add(x, rms_norm(ops, y, f"{layer.prefix}post_attention_norm", hp.norm_eps))
        y = layer.feed.forward(ops, x)
        x = ops.add(x, rms_norm(ops, y, f"{layer.prefix}post_ffw_norm", hp.norm_eps))
    return logits(ops, x, hp)


class Olmo2(Architecture):
    name = "olmo2"
    hf_classes = ("Olmo2ForCausalLM", "Olmo3ForCausalLM")
    hf_model_type = "olmo2"
    reads = ("layer_types",)
    keys = (
        *DECODER_KEYS,
        Key("{arch}.attention.sliding_window", ("sliding_window",), "window"),
        Key(
            "{arch}.attention.sliding_window_pattern",
            (),
            "window_layers",
            "bools",
            derive=listed_windows(PERIOD),
        ),
        LOCAL_KEY,
    )
    config_defaults = {  # noqa: RUF012 - read only
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
    }
    tensors = TENSORS

    def layer(self, values: Values, i: int) -> Layer:
        rope, window = rotation(values, "neox"), None
        if windowed(values, i, PERIOD):
            window = values["window"]
            rope = Rope.local(values, "neox", rope.dims) or Rope("neox", rope.dims, rope.base)
        mixer = Attention.of(values, i, rope, window=window, norms="all")
        return Layer(mixer, FeedForward.of(values, i))

    def forward(self, ops: Any, hp: HParams) -> Any:
        return forward(ops, hp)

    def config(self, config: Mapping[str, Any]) -> dict[str, Any]:
        flat = super().config(config)
        if flat.get("model_type") == "olmo3":
            flat.setdefault("sliding_window", 4096)
        return flat

    def export_config(self, hp: HParams) -> dict[str, Any]:
        windows = [layer.memory.window for layer in hp.layers]
        if not any(windows):
            return {}
        kinds = ["sliding_attention" if w else "full_attention" for w in windows]
        assert hp.rope is not None
        return {
            "architectures": ["Olmo3ForCausalLM"],
            "model_type": "olmo3",
            "layer_types": kinds,
            "rope_theta": None,  # transformers would read it for the first kind of layers only
            "rope_parameters": {
                "full_attention": hp.rope.settings(),
                "sliding_attention": {"rope_type": "default", "rope_theta": hp.rope.base},
            },
        }


ARCHITECTURE = Olmo2()
