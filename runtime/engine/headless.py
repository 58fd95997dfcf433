"""Architectures that end before the head, or keep the states there: for who wants these."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ggq.models.hparams import HParams
from ggq.models.layers.linear import rms_norm
from ggq.runtime.engine.backend import Architecture, Output, Part

__all__ = ["Tap", "ending_with"]

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
        readout = replace(hp.readout, logit_scale=None, final_softcap=None)
        plain = replace(hp, readout=readout)
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


Listener = Callable[[list[Part], np.ndarray], None]


@dataclass(frozen=True)
class Tap:
    """Who is told of the hidden states behind the last layer, and in which form.

    ``listener`` gets a step's parts, before they count as evaluated, and float32 (all tokens,
    n_embd). ``norm``: what names the norm that the states went through, given the ops; None: raw.
    """

    listener: Listener | None = None
    norm: Callable[[Any], str] | None = None

    def on(self, architecture: Architecture) -> Architecture:
        """Return the architecture whose forward pass keeps the states: its logits are the same."""
        return _Tapped(architecture, self)


class _Tapped:
    def __init__(self, architecture: Architecture, tap: Tap):
        self._architecture, self._tap = architecture, tap

    def forward(self, ops: Any, hp: HParams) -> Any:
        """Return what the architecture's does; the states are noted at its gather."""
        return self._architecture.forward(_Noting(ops, hp, self._tap), hp)


class _Noting:
    """The ops of the CPU's back end; what is gathered is kept to be read after the step."""

    def __init__(self, ops: Any, hp: HParams, tap: Tap):
        self._ops, self._hp, self._tap = ops, hp, tap

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ops, name)

    def gather(self, x: Any) -> Any:
        """Return the rows asked for, and keep those of all tokens."""
        states, norm = x, self._tap.norm
        if norm is not None:
            states = rms_norm(self._ops, x, norm(self._ops), self._hp.norm_eps)
        self._ops.recorder.tapped = states.f32()
        return self._ops.gather(x)
