"""What a layer is made of and what it keeps of past tokens; it knows no kind of part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

from ggq.errors import ModelError

__all__ = ["Layer", "Memory", "Part", "Values"]

PartT = TypeVar("PartT", bound="Part")


class Memory(NamedTuple):
    """What a layer keeps of a sequence's past: keys and values of every token, or states.

    Key-value heads of ``head_dim`` and ``head_dim_v`` columns, of the last ``window`` tokens or of
    all; the float32 values of a convolution's and of a recurrent state. ``owner``: the layer whose
    keys and values this one reads instead of having its own.
    """

    n_head_kv: int = 0
    head_dim: int = 0
    head_dim_v: int = 0
    window: int | None = None
    states: tuple[int, int] = (0, 0)
    owner: int | None = None


class Values(dict[str, Any]):
    """What a model's keys say: attribute -> value, or a tuple with one value per layer."""

    def __init__(self, arch: str, values: Mapping[str, Any]):
        super().__init__(values)
        self.arch = arch

    def at(self, name: str, i: int, what: str) -> Any:
        """Return layer ``i``'s value; ModelError, which says ``what``, where layers lack one."""
        value = self.get(name)
        if not isinstance(value, tuple):
            return value
        if len(value) < self["n_layer"]:
            raise ModelError(f"{self.arch}: {len(value)} {what} for {self['n_layer']} layers")
        return value[i]

    def first(self, name: str) -> Any:
        """Return the value of the first layer, None where no layer has one."""
        value = self.get(name)
        return (value[0] if value else None) if isinstance(value, tuple) else value


@dataclass(frozen=True)
class Part:
    """One part of layer number ``layer``: subclasses are its settings and know its graph."""

    layer: int = field(default=0, kw_only=True)

    @property
    def dims(self) -> dict[str, int]:
        """Sizes of the dimensions that shapes of this part's tensors name; 0: no such tensor."""
        return {}

    @property
    def memory(self) -> Memory:
        """What this part keeps of past tokens."""
        return Memory()

    @property
    def parts(self) -> tuple[Part, ...]:
        """This part and those that it is made of."""
        return (self,)

    @property
    def experts(self) -> tuple[int, int]:
        """How many experts there are, and how many of them a token goes to."""
        return 0, 0

    def problem(self) -> str | None:
        """Say which sizes do not fit each other, if any: what is computed later relies on it."""
        return None

    def for_context(self: PartT, n_ctx: int) -> PartT:
        """Return the part as it is in a context of ``n_ctx`` tokens."""
        return self

    def forward(self, ops: Any, x: Any) -> Any:
        """Record what becomes of the normed ``x``, (n_tokens, n_embd)."""
        raise NotImplementedError(type(self).__name__)


@dataclass(frozen=True)
class Layer:
    """One layer: ``mixer`` moves information between tokens, ``feed`` works on each by itself.

    Where layers are of one part each it is called ``mixer``, and ``feed`` is nothing.
    """

    mixer: Part
    feed: Part = Part()
    others: tuple[Part, ...] = ()

    @property
    def prefix(self) -> str:
        """What the names of the layer's tensors begin with."""
        return f"blk.{self.mixer.layer}."

    @property
    def parts(self) -> tuple[Part, ...]:
        return tuple(p for part in (self.mixer, self.feed, *self.others) for p in part.parts)

    @property
    def memory(self) -> Memory:
        return self.mixer.memory

    def find(self, kind: type[PartT]) -> PartT | None:
        """Return the layer's part of that kind, None where it has none."""
        return next((part for part in self.parts if isinstance(part, kind)), None)

    def dim(self, name: str) -> int | None:
        """Return the size of a dimension that one of the parts names."""
        return next((part.dims[name] for part in self.parts if name in part.dims), None)

    def for_context(self, n_ctx: int) -> Layer:
        """Return the layer as it is in a context of ``n_ctx`` tokens."""
        others = tuple(part.for_context(n_ctx) for part in self.others)
        return Layer(self.mixer.for_context(n_ctx), self.feed.for_context(n_ctx), others)
