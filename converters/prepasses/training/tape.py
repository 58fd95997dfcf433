"""A forward pass as a list of operations, cut where one block of the model ends.

The architecture's forward is run once on names only; a piece can then be run again and again, with
or without gradients, on any back end. It knows no architecture and no values.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from ggq.errors import ModelError

__all__ = ["Call", "Piece", "Tape", "Value"]

BLOCK = re.compile(r"blk\.(\d+)\.")


@dataclass(frozen=True)
class Value:
    """The result of the call number ``index``."""

    index: int


@dataclass(frozen=True)
class Call:
    """One operation: its name and arguments, values of earlier calls among them."""

    op: str
    args: tuple[Any, ...]
    more: dict[str, Any]

    def inputs(self) -> Iterator[int]:
        """Yield the numbers of the calls whose results it takes."""
        for value in (*self.args, *self.more.values()):
            if isinstance(value, Value):
                yield value.index

    def names(self) -> Iterator[str]:
        """Yield every string among the arguments and within their specifications."""
        for value in (*self.args, *self.more.values()):
            for one in (value, *vars(value).values()) if hasattr(value, "__dict__") else (value,):
                if isinstance(one, str):
                    yield one


@dataclass
class Piece:
    """Calls that belong to one block; ``block`` -1 is what comes before all, None what follows.

    ``takes`` are results of earlier pieces, ``gives`` those that later ones take; the last of
    ``gives`` is the residual stream, or the logits.
    """

    block: int | None
    calls: list[tuple[int, Call]] = field(default_factory=list)
    takes: list[int] = field(default_factory=list)
    gives: list[int] = field(default_factory=list)

    def tensors(self, has: Callable[[str], bool]) -> list[str]:
        """Return the names of the tensors that it uses, in order."""
        found = (name for _, call in self.calls for name in call.names() if has(name))
        return list(dict.fromkeys(found))

    def run(self, ops: Any, ids: Any, held: dict[int, Any]) -> dict[int, Any]:
        """Run the calls on ``ops`` for token ``ids`` (n_sequences, n_tokens); return ``gives``."""
        ops.ids = ids
        ops.reset()
        known = {i: held[i] for i in self.takes}
        left = {i: n for n, (_, call) in enumerate(self.calls) for i in call.inputs()}

        def value(one: Any) -> Any:
            return known[one.index] if isinstance(one, Value) else one

        for n, (index, call) in enumerate(self.calls):
            args = [value(a) for a in call.args]
            more = {k: value(v) for k, v in call.more.items()}
            known[index] = getattr(ops, call.op)(*args, **more)
            for i in call.inputs():
                if left[i] == n and i not in self.gives:
                    known.pop(i, None)
        ops.reset()
        return {i: known[i] for i in self.gives}

    def check(self, made: dict[int, Any]) -> None:
        """Raise ModelError where a result of `run` is not finite."""
        if not all(value.isfinite().all() for value in made.values() if hasattr(value, "isfinite")):
            raise ModelError(f"block {self.block} gives values that are not finite")


class Tape:
    """The operations of a forward pass in order; ``weights`` tells which tensors there are."""

    def __init__(self, architecture: Any, hp: Any, weights: Any):
        self.calls: list[Call] = []
        self._weights = weights
        self._cached: dict[Any, Any] = {}
        architecture.forward(self, hp)

    def has(self, name: str) -> bool:
        return name in self._weights

    def number(self, name: str) -> float:
        """Return the single value of a tensor: it is no part of what can be trained."""
        return float(self._weights[name].dequantized().ravel()[0])

    def attention(self, q: Value, k: Value | None, v: Value | None, layer: int, spec: Any) -> Value:
        """Record attention with its own keys and values, also where they are another layer's."""
        if k is not None:
            self._cached[layer] = k, v
        k, v = self._cached[layer]
        return self._record("attention", (q, k, v, len(self.calls), spec), {})

    def __getattr__(self, name: str) -> Callable[..., Value]:
        if name.startswith("_"):
            raise AttributeError(name)
        return lambda *args, **more: self._record(name, args, more)

    def _record(self, name: str, args: tuple[Any, ...], more: dict[str, Any]) -> Value:
        self.calls.append(Call(name, args, more))
        return Value(len(self.calls) - 1)

    def pieces(self) -> list[Piece]:
        """Return the calls block by block; together they are the forward pass."""
        made = [Piece(-1)]
        for index, call in enumerate(self.calls):
            block = self._block(call, made[-1].block)
            if block != made[-1].block:
                made.append(Piece(block))
            made[-1].calls.append((index, call))
        end = len(self.calls) - 1
        for n, piece in enumerate(made):
            own = {i for i, _ in piece.calls}
            used = {i for _, call in piece.calls for i in call.inputs()}
            later = {i for p in made[n + 1 :] for _, call in p.calls for i in call.inputs()}
            piece.takes = sorted(used - own)
            piece.gives = sorted(own & (later | {end}))
        return made

    def _block(self, call: Call, now: int | None) -> int | None:
        """Return the block that a call belongs to; one without tensors of any stays in ``now``."""
        found = [BLOCK.match(n) for n in call.names()]
        numbers = [int(m[1]) for m in found if m]
        if numbers:
            return max(numbers)
        named = any(isinstance(a, str) and self.has(a) for a in call.args)
        return None if named and now is not None and now >= 0 else now
