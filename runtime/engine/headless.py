"""An architecture whose forward pass ends before the head: for those who want hidden states."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ggq.models.hparams import HParams
from ggq.runtime.engine.backend import Architecture, Output

__all__ = ["ending_with"]

_HEADS = ("output.weight", "token_embd.weight")


def ending_with(output: Output, architecture: Architecture) -> Architecture:
    """Return the architecture whose forward pass gives ``output``."""
    return architecture if output is Output.LOGITS else _Headless(architecture)


class _Headless:
    """An architecture whose forward pass ends with the normed hidden states."""

    def __init__(self, architecture: Architecture):
        self._architecture = architecture

    def forward(self, ops: Any, hp: HParams) -> Any:
        """Return the normed hidden states of the gathered rows."""
        plain = replace(hp, logit_scale=None, final_softcap=None)
        return self._architecture.forward(_WithoutHead(ops), plain)


class _WithoutHead:
    """The ops of a back end; the last linear gives back its input."""

    def __init__(self, ops: Any):
        self._ops = ops

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ops, name)

    def linear(self, x: Any, name: str, **options: Any) -> Any:
        """Return x for the head, else what the back end's linear returns."""
        return x if name in _HEADS else self._ops.linear(x, name, **options)
