"""SmolLM3: like llama, with no positions at all in every fourth layer (NoPE)."""

from collections.abc import Mapping
from typing import Any

from ggq.errors import ModelError
from ggq.models.blocks import Decoder
from ggq.models.hparams import MAX_LAYERS
from ggq.models.keys import LLAMA_KEYS
from ggq.models.tables import DECODER_TENSORS, permuted
from ggq.models.vocabulary import LLAMA_VOCAB

__all__ = ["ARCHITECTURE"]

PERIOD = 4  # GGUF has no key for it


class SmolLM3(Decoder):
    name = "smollm3"
    hf_classes = ("SmolLM3ForCausalLM",)
    hf_model_type = "smollm3"
    keys = LLAMA_KEYS
    config_defaults = {  # noqa: RUF012 - read only
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-6,
        "rope_theta": 2000000.0,
    }
    tensors = permuted(DECODER_TENSORS)
    vocab = LLAMA_VOCAB

    def config(self, config: Mapping[str, Any]) -> dict[str, Any]:
        flat = super().config(config)
        given = flat.get("no_rope_layers")
        want = [int((i + 1) % PERIOD != 0) for i in range(len(given or ()))]
        if given and list(given) != want:
            raise ModelError(f"smollm3: no_rope_layers other than every {PERIOD}th layer")
        return flat

    def finish(self, values: dict[str, Any]) -> dict[str, Any]:
        n_layer = min(values["n_layer"], MAX_LAYERS)
        return values | {"rope_layers": tuple((i + 1) % PERIOD != 0 for i in range(n_layer))}

    def export_config(self, hp: Any) -> dict[str, Any]:
        return {"no_rope_layers": [int(on) for on in hp.rope_layers], "no_rope_layer_interval": 4}


ARCHITECTURE = SmolLM3()
