"""Command R7B, Command A, Aya: command-r with windows; layers without one have no positions."""

from typing import Any

from ggq.models import ledger
from ggq.models.command_r import COHERE_KEYS, Cohere
from ggq.models.decoder import ROPE_DIM_KEY, VOCAB_KEY
from ggq.models.hparams import HParams
from ggq.models.layers.attention import Attention, rotation, window_keys, windowed
from ggq.models.layers.base import Layer, Values
from ggq.models.layers.feed_forward import FeedForward

__all__ = ["ARCHITECTURE"]

PERIOD = 4  # of the layers that see all, where neither config nor file says


class Cohere2(Cohere):
    name = "cohere2"
    hf_classes = ("Cohere2ForCausalLM",)
    hf_model_type = "cohere2"
    keys = (*COHERE_KEYS, *window_keys(PERIOD)[:2], VOCAB_KEY, ROPE_DIM_KEY)
    config_defaults = {  # noqa: RUF012 - read only
        "max_position_embeddings": 8192,
        "layer_norm_eps": 1e-5,
        "logit_scale": 0.0625,
        "rope_theta": 10000.0,
        "sliding_window": 4096,
    }
    fixed = {  # noqa: RUF012 - read only
        "hidden_act": ledger.SILU,
        "rotary_pct": (1.0,),
        "partial_rotary_factor": (1.0,),
        "tie_word_embeddings": (True,),
        "use_parallel_block": (True,),
        "use_gated_activation": (True,),
        "use_qk_norm": (False,),
    }

    def layer(self, values: Values, i: int) -> Layer:
        local = windowed(values, i, PERIOD)
        rope, window = (rotation(values, "norm"), values["window"]) if local else (None, None)
        return Layer(Attention.of(values, i, rope, window=window), FeedForward.of(values, i))

    def export_config(self, hp: HParams) -> dict[str, Any]:
        windows = [layer.memory.window for layer in hp.layers]
        return {"layer_types": ["sliding_attention" if w else "full_attention" for w in windows]}


ARCHITECTURE = Cohere2()
