"""Alternating updates (Gemma 3n): several streams of hidden states, of which a layer works on one.

Method: arXiv 2301.13310; each layer predicts all streams from all, evaluates the active one and
corrects the others by what that brought.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ggq.models.layers.base import Part
from ggq.models.layers.linear import linear, rms_norm
from ggq.models.table import Tensor, norm, rows

__all__ = ["TENSORS", "AltUp"]


@dataclass(frozen=True)
class AltUp(Part):
    """``n`` streams of ``n_embd`` columns; the first is the one that layers work on."""

    n: int
    n_embd: int
    norm_eps: float

    @property
    def dims(self) -> dict[str, int]:
        return {"streams": self.n, "streams_squared": self.n**2, "other_streams": self.n - 1}

    def problem(self) -> str | None:
        return None if self.n > 1 else f"{self.n} streams of alternating updates"

    def open(self, ops: Any, x: Any) -> list[Any]:
        """Return the streams that begin as ``x`` and its projections, all of one size."""
        made = ops.heads(_side_by_side(ops, [x] * (self.n - 1)), "altup_proj.weight")
        return [x, *(ops.match(y, x) for y in self._apart(ops, made))]

    def close(self, ops: Any, streams: Sequence[Any]) -> Any:
        """Return the mean of the streams, projected back and brought to the first one's size."""
        made = ops.heads(_side_by_side(ops, streams[1:]), "altup_unembd_proj.weight")
        total = streams[0]
        for y in self._apart(ops, made):
            total = ops.add(total, ops.match(y, streams[0]))
        return ops.scale(total, 1.0 / self.n)

    def predict(self, ops: Any, streams: Sequence[Any]) -> list[Any]:
        """Return each stream plus what the layer's coefficients make of all."""
        coefs = linear(ops, self._router(ops, streams[0]), f"{self._prefix}predict_coef")
        return [self._mixed(ops, streams, coefs, i) for i in range(self.n)]

    def correct(self, ops: Any, predicted: Sequence[Any], active: Any) -> list[Any]:
        """Return the predictions moved by what evaluating the first one brought."""
        news = ops.add(active, ops.scale(predicted[0], -1.0))
        coefs = linear(ops, self._router(ops, active), f"{self._prefix}correct_coef")
        moved = (ops.add(news, _times(ops, coefs, i, news)) for i in range(self.n))
        return [ops.add(p, m) for p, m in zip(predicted, moved, strict=True)]

    @property
    def _prefix(self) -> str:
        return f"blk.{self.layer}.altup_"

    def _router(self, ops: Any, x: Any) -> Any:
        seen = rms_norm(ops, x, f"{self._prefix}router_norm", self.norm_eps)
        seen = ops.scale(seen, 1.0 / self.n_embd)
        return ops.softcap(linear(ops, seen, f"{self._prefix}router"), 1.0)  # tanh

    def _mixed(self, ops: Any, streams: Sequence[Any], coefs: Any, i: int) -> Any:
        total = streams[i]
        for j, x in enumerate(streams):
            total = ops.add(total, _times(ops, coefs, i * self.n + j, x))
        return total

    def _apart(self, ops: Any, x: Any) -> list[Any]:
        return [ops.columns(x, i * self.n_embd, self.n_embd) for i in range(self.n - 1)]


def _times(ops: Any, coefs: Any, i: int, x: Any) -> Any:
    """Return ``x`` times column ``i`` of the coefficients, token by token."""
    return ops.gate(ops.columns(coefs, i, 1), x, kind="none")


def _side_by_side(ops: Any, parts: Sequence[Any]) -> Any:
    whole = parts[0]
    for part in parts[1:]:
        whole = ops.join(whole, part, 1)
    return whole


KEPT: dict[str, Any] = {"role": "kept", "bias": False, "part": AltUp}
SMALL: dict[str, Any] = {**KEPT, "f32": True}


def _stacked(gguf: str, hf: str) -> Tensor:
    names = tuple(f"model.{hf}.{k}.weight" for k in range(3))
    shape = ("other_streams", "embd", "embd")
    return Tensor(f"{gguf}.weight", names, shape, role="kept", part=AltUp)


TENSORS = (
    _stacked("altup_proj", "altup_projections"),
    _stacked("altup_unembd_proj", "altup_unembed_projections"),
    *rows("altup_correct_coef", "altup.correction_coefs", ("streams", "streams"), **SMALL),
    *rows("altup_predict_coef", "altup.prediction_coefs", ("streams_squared", "streams"), **SMALL),
    *rows("altup_router", "altup.modality_router", ("streams", "embd"), **KEPT),
    *norm("altup_router_norm", "altup.router_norm", part=AltUp),
    Tensor(
        "blk.{i}.altup_correct_scale.weight",
        ("model.layers.{i}.altup.correct_output_scale",),
        ("embd",),
        role="norm",
        f32=True,
        part=AltUp,
    ),
)
