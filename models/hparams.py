"""Hyper-parameters of a model: what all layers share, and the layers, each resolved.

It knows no file, no config, no key names and no kind of part: `ggq.models.base` fills it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from ggq.errors import ModelError, UsageError
from ggq.models.layers.base import Layer, Memory, PartT
from ggq.models.layers.rope import Rope
from ggq.models.pooled import POOLINGS, Readout

__all__ = ["HParams", "check_generates"]


@dataclass(frozen=True)
class HParams:
    """One model. ``n_head`` and ``n_head_kv`` are what its keys say first, for mixtures' rules.

    ``heads``: further layers that predict further tokens; only files know them.
    ``first_position``: the row of the checkpoint's table at which its learned embeddings of the
    positions up to ``n_ctx_train`` begin; None where they are not learned. ``deepstack``: after how
    many of the first layers pictures bring further rows; ``pictures``: whether some may come.
    """

    arch: str
    n_vocab: int
    n_ctx_train: int
    n_embd: int
    norm_eps: float
    layers: tuple[Layer, ...]
    n_head: int
    n_head_kv: int
    causal: bool = True
    readout: Readout = field(default_factory=Readout)
    n_token_types: int = 0
    first_position: int | None = None
    embedding_scale: float | None = None
    residual_scale: float | None = None
    deepstack: int = 0
    pictures: bool = False
    heads: tuple[Layer, ...] = ()

    @property
    def n_layer(self) -> int:
        return len(self.layers)

    @property
    def blocks(self) -> tuple[Layer, ...]:
        """All layers that a file numbers: those of the model, then its heads."""
        return (*self.layers, *self.heads)

    @property
    def n_block(self) -> int:
        return len(self.blocks)

    @property
    def mutual(self) -> bool:
        """Whether some layers let a picture's tokens see each other."""
        return any(getattr(p, "mutual", False) for layer in self.layers for p in layer.parts)

    @property
    def memories(self) -> list[Memory]:
        """What each layer keeps of past tokens."""
        return [layer.memory for layer in self.layers]

    @property
    def n_expert(self) -> int:
        """The experts of a layer that has some, 0 where none has."""
        return max(part.experts for layer in self.blocks for part in layer.parts)[0]

    @property
    def n_expert_used(self) -> int:
        """The experts that a token goes to in a layer that has some."""
        return max(part.experts for layer in self.blocks for part in layer.parts)[1]

    @property
    def rope(self) -> Rope | None:
        """The rotary embedding of the layers that see all, None where there is none."""
        parts = [p for layer in self.layers for p in layer.parts]
        parts.sort(key=lambda part: getattr(part, "window", None) is not None)
        ropes: list[Rope | None] = [getattr(part, "rope", None) for part in parts]
        return next((rope for rope in ropes if rope and not rope.is_still), None)

    def find(self, kind: type[PartT]) -> PartT | None:
        """Return the first layer's part of that kind, None where no layer has one."""
        return next((p for layer in self.layers for p in layer.parts if isinstance(p, kind)), None)

    def for_context(self, n_ctx: int) -> HParams:
        """Return these settings for running with room for ``n_ctx`` tokens (LongRoPE chooses)."""
        return replace(self, layers=tuple(layer.for_context(n_ctx) for layer in self.layers))

    def dim(self, name: str, layer: int | None = None) -> int:
        """Return the size of dimension ``name`` of a tensor, of any layer's part or ``layer``'s.

        "a+b" is the sum of two dimensions, "2*a" twice one.
        """
        if name.isdigit():
            return int(name)
        first, plus, rest = name.partition("+")
        if plus:
            return self.dim(first, layer) + self.dim(rest, layer)
        factor, times, rest = name.partition("*")
        if times:
            return int(factor) * self.dim(rest, layer)
        sizes = {
            "vocab": self.n_vocab,
            "embd": self.n_embd,
            "positions": self.n_ctx_train,
            "token_types": self.n_token_types,
            "labels": len(self.readout.labels),
        }
        for number, layer_of in enumerate(self.readout.dense, 2):
            sizes |= {f"dense_{number}_in": layer_of.n_in, f"dense_{number}_out": layer_of.n_out}
        if name in sizes:
            return sizes[name]
        places = self.blocks if layer is None else (self.blocks[layer],)
        return next((n for place in places if (n := place.dim(name)) is not None), 0)


def check_generates(hp: Any) -> None:
    """Raise UsageError for an encoder: it has no next token."""
    if not hp.causal:
        raise UsageError(
            f"{hp.arch} is an encoder: it embeds texts (model.embed, /v1/embeddings), "
            "it does not write any"
        )
    if not hp.readout.output_head:
        raise UsageError(
            f"this {hp.arch} file has no output head: it embeds or ranks texts "
            "(model.embed, model.rerank), it does not write any"
        )


def check(hp: HParams) -> None:
    """Raise ModelError where sizes cannot be those of a model; later computations rely on it."""
    sizes = {
        "vocabulary size": hp.n_vocab,
        "context length": hp.n_ctx_train,
        "norm epsilon": hp.norm_eps,
    }
    for what, value in sizes.items():
        if not value or value < 0:
            raise ModelError(f"{hp.arch}: {what} is {value}")
    pooling = hp.readout.pooling
    if not 0 <= pooling < len(POOLINGS):
        raise ModelError(f"{hp.arch}: pooling type {pooling}: {', '.join(POOLINGS)} are 0 to 4")
    for layer in hp.blocks:
        for part in layer.parts:
            problem = part.problem()
            if problem:
                raise ModelError(f"{hp.arch}: {problem}")
