"""SmolLM3: like llama, with no positions at all in every fourth layer (NoPE)."""

from collections.abc import Iterator, Mapping
from typing import Any

from ggq.errors import ModelError
from ggq.models import ledger, llama
from ggq.models.base import Architecture
from ggq.models.decoder import DECODER_TENSORS, LLAMA_KEYS
from ggq.models.hparams import HParams
from ggq.models.layers.attention import Attention, rotation
from ggq.models.layers.base import Layer, Values
from ggq.models.layers.feed_forward import FeedForward
from ggq.models.table import permuted
from ggq.models.vocabulary import LLAMA_VOCAB

__all__ = ["ARCHITECTURE"]

PERIOD = 4  # GGUF has no key for it


def _rotates(i: int) -> bool:
    """Tell whether layer ``i`` knows positions."""
    return (i + 1) % PERIOD != 0


class SmolLM3(Architecture):
    name = "smollm3"
    hf_classes = ("SmolLM3ForCausalLM",)
    hf_model_type = "smollm3"
    reads = (*ledger.WINDOWS, "no_rope_layers", "no_rope_layer_interval")

    def conflicts(self, config: Mapping[str, Any]) -> Iterator[tuple[str, Any, str]]:
        yield from ledger.windows(config, lambda _, i: not _rotates(i))
        interval = config.get("no_rope_layer_interval")
        if not config.get("no_rope_layers") and interval not in (None, PERIOD):
            yield (
                "no_rope_layer_interval",
                interval,
                f"only every {PERIOD}th layer without is known",
            )

    keys = LLAMA_KEYS
    config_defaults = {  # noqa: RUF012 - read only
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-6,
        "rope_theta": 2000000.0,
    }
    tensors = permuted(DECODER_TENSORS)
    vocab = LLAMA_VOCAB

    def layer(self, values: Values, i: int) -> Layer:
        rope = rotation(values, "norm") if _rotates(i) else None
        return Layer(Attention.of(values, i, rope), FeedForward.of(values, i))

    def forward(self, ops: Any, hp: HParams) -> Any:
        return llama.forward(ops, hp)

    def config(self, config: Mapping[str, Any]) -> dict[str, Any]:
        flat = super().config(config)
        given = flat.get("no_rope_layers")
        if given and list(given) != [int(_rotates(i)) for i in range(len(given))]:
            raise ModelError(f"smollm3: no_rope_layers other than every {PERIOD}th layer")
        return flat

    def export_config(self, hp: HParams) -> dict[str, Any]:
        layers = [int(_rotates(i)) for i in range(hp.n_layer)]
        return {"no_rope_layers": layers, "no_rope_layer_interval": PERIOD}


ARCHITECTURE = SmolLM3()
