"""EXAONE 4: norms after each part; beside layers with a window, the others have no positions."""

from typing import Any

from ggq.models import ledger, olmo2
from ggq.models.base import Architecture
from ggq.models.decoder import DECODER_KEYS, VOCAB_KEY
from ggq.models.hparams import HParams
from ggq.models.layers import attention
from ggq.models.layers.attention import Attention, listed_windows, rotation, windowed
from ggq.models.layers.base import Layer, Values
from ggq.models.layers.feed_forward import FeedForward
from ggq.models.layers.rope import STORED
from ggq.models.table import Key, changed

__all__ = ["ARCHITECTURE"]

PERIOD = 4  # of the layers that see all, where the config lists none


class Exaone4(Architecture):
    name = "exaone4"
    hf_classes = ("Exaone4ForCausalLM",)
    hf_model_type = "exaone4"
    fixed = {  # noqa: RUF012 - read only
        "hidden_act": ledger.SILU,
        "sliding_window_pattern": (0, PERIOD, "LLLG"),  # others only as layer_types
    }
    reads = ("layer_types",)
    peer_factors = (STORED,)
    keys = (
        *DECODER_KEYS,
        VOCAB_KEY,
        Key("{arch}.attention.sliding_window", ("sliding_window",), "window"),
        Key(
            "{arch}.attention.sliding_window_pattern",
            (),
            "window_layers",
            "bools",
            derive=listed_windows(PERIOD),
        ),
    )
    config_defaults = {  # noqa: RUF012 - read only
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
    }
    tensors = changed(olmo2.TENSORS, *attention.QK_NORMS)

    def layer(self, values: Values, i: int) -> Layer:
        local = windowed(values, i, PERIOD)
        mixer = Attention.of(
            values,
            i,
            rotation(values, "neox") if local or not values.get("window") else None,
            window=values["window"] if local else None,
            norms="head",
        )
        return Layer(mixer, FeedForward.of(values, i))

    def forward(self, ops: Any, hp: HParams) -> Any:
        return olmo2.forward(ops, hp)

    def export_config(self, hp: HParams) -> dict[str, Any]:
        windows = [layer.memory.window for layer in hp.layers]
        return {
            "sliding_window": next((w for w in windows if w), None),
            "layer_types": ["sliding_attention" if w else "full_attention" for w in windows],
        }


ARCHITECTURE = Exaone4()
