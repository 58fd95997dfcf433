"""Per-layer embeddings (Gemma 3n, Gemma 4): each layer adds its own embedding of the token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ggq.models.layers.base import Part
from ggq.models.layers.linear import linear, rms_norm
from ggq.models.table import Key, Tensor, norm, rows

__all__ = ["KEY", "TENSORS", "PerLayerInput"]


@dataclass(frozen=True)
class PerLayerInput(Part):
    """``n_embd_layer`` columns of an embedding that holds those of all ``n_layer`` layers."""

    n_embd_layer: int
    n_embd: int
    n_layer: int
    activation: str
    norm_eps: float

    @property
    def dims(self) -> dict[str, int]:
        return {
            "embd_layer": self.n_embd_layer,
            "embd_layers": self.n_embd_layer * self.n_layer,
        }

    def embed(self, ops: Any, x: Any) -> Any:
        """Return all layers' embeddings of the tokens, (n_tokens, n_layer * n_embd_layer)."""
        n = self.n_embd_layer
        own = ops.scale(ops.embed("per_layer_token_embd.weight"), float(n) ** 0.5)
        made = ops.scale(linear(ops, x, "per_layer_model_proj"), float(self.n_embd) ** -0.5)
        made = rms_norm(ops, made, "per_layer_proj_norm", self.norm_eps, n)
        return ops.scale(ops.add(own, made), 0.5**0.5)

    def forward(self, ops: Any, x: Any, embedded: Any = None) -> Any:
        """Record what the layer's own embedding, gated by ``x``, gives."""
        p, n = f"blk.{self.layer}.", self.n_embd_layer
        own = ops.columns(embedded, self.layer * n, n)
        y = ops.gate(linear(ops, x, f"{p}inp_gate"), own, kind=self.activation)
        return rms_norm(ops, linear(ops, y, f"{p}proj"), f"{p}post_norm", self.norm_eps)


KEY = Key(
    "{arch}.embedding_length_per_layer_input",
    ("hidden_size_per_layer_input",),
    "n_embd_layer",
    derive=lambda config: 0,
)
WHOLE: dict[str, Any] = {"part": PerLayerInput}
PLAIN: dict[str, Any] = {"part": PerLayerInput, "role": "other", "bias": False}
TENSORS = (
    Tensor(
        "per_layer_token_embd.weight",
        ("model.embed_tokens_per_layer.weight",),
        ("vocab", "embd_layers"),
        role="token_embd",
        **WHOLE,
    ),
    Tensor(
        "per_layer_model_proj.weight",
        ("model.per_layer_model_projection.weight",),
        ("embd_layers", "embd"),
        role="kept",
        **WHOLE,
    ),
    Tensor(
        "per_layer_proj_norm.weight",
        ("model.per_layer_projection_norm.weight",),
        ("embd_layer",),
        role="norm",
        f32=True,
        **WHOLE,
    ),
    *rows("inp_gate", "per_layer_input_gate", ("embd_layer", "embd"), input="layer_out", **PLAIN),
    *rows("proj", "per_layer_projection", ("embd", "embd_layer"), input="layer_act", **PLAIN),
    *norm("post_norm", "post_per_layer_input_norm", **WHOLE),
)
