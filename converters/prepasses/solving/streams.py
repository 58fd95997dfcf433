"""Runs teacher and student through the same forward, side by side, all calibration tokens at once.

A value is a pair of activations per batch of windows; a linear waits until its result is used, so
that the residual it is added to is known when its weights are chosen. Once used, intermediate
values are freed: what stays is a block's and the two residual streams. It knows no quantization:
a callback chooses the student's weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from ggq.converters.prepasses.solving.hessian import Hessian
from ggq.errors import ModelError, printable
from ggq.runtime.backends.torch.backend import TorchOps

__all__ = ["Moments", "Pair", "StreamOps"]


PANEL = 256  # columns of second moments that are multiplied at once


class Pair:
    """One value of the graph: ``teacher`` and ``student`` hold a (rows, width) tensor per batch."""

    def __init__(self, teacher: list[torch.Tensor], student: list[torch.Tensor]):
        self.teacher, self.student = teacher, student
        self.moments: Moments | None = None

    def differences(self) -> Iterator[torch.Tensor]:
        """Yield by how much the teacher's values are more than the student's, batch by batch."""
        for t, s in zip(self.teacher, self.student, strict=True):
            yield t - s


class Moments:
    """Second moments of a linear's inputs x, float64, means over tokens.

    ``hessian`` (n, n) is E[x_s x_s'] of the student's. Products are float32, batch by batch, and
    their sums float64. ModelError where an input is not finite.
    """

    def __init__(self, x: Pair, name: str):
        n = x.student[0].shape[1]
        student = torch.zeros(n, n, dtype=torch.float64)
        self.n_tokens = max(1, sum(len(part) for part in x.student))
        for part in x.student:
            for a in range(0, n, PANEL):  # what lies below the diagonal is mirrored
                student[a : a + PANEL, a:] += part[:, a : a + PANEL].T @ part[:, a:]
        mirrored = torch.triu(student) + torch.triu(student, 1).T
        self.hessian = Hessian(_finite(mirrored.numpy() / self.n_tokens, name), name)
        self._shift: np.ndarray | None = None

    def shift(self, x: Pair) -> np.ndarray:
        """Return E[(x_t - x_s) x_s'], float64 (n, n); kept for the linears that share ``x``."""
        if self._shift is None:
            self._shift = self.against(x, x.differences())
        return self._shift

    def shrink_towards(self, other: Moments, own: Pair, all_of: Pair, share: float) -> None:
        """Keep only ``share`` of these moments, ``own``'s, and take the rest from ``other``."""
        mixed = share * self.hessian.matrix + (1 - share) * other.hessian.matrix
        self._shift = share * self.shift(own) + (1 - share) * other.shift(all_of)
        self.hessian = Hessian(mixed, self.hessian.name)

    def against(self, x: Pair, values: Iterable[torch.Tensor]) -> np.ndarray:
        """Return E[v x_s'], float64 (width of v, n), for ``values`` v of each batch."""
        total = sum((v.T @ part).double() for v, part in zip(values, x.student, strict=True))
        assert isinstance(total, torch.Tensor)
        return _finite(total.numpy() / self.n_tokens, self.hessian.name)


def _finite(moments: np.ndarray, name: str) -> np.ndarray:
    if not np.isfinite(moments).all():
        raise ModelError(f"the inputs of {printable(name)} are not finite")
    return moments


class _Waiting:
    """A linear whose weights are chosen when its result is used; ``factor`` scales the result."""

    def __init__(self, x: Pair, name: str, more: dict[str, Any], factor: float = 1.0):
        self.x, self.name, self.more, self.factor = x, name, more, factor


_END: Any = object()  # the logits: what is made of them is not computed
# choose(name, x, residual, factor[, rows]): the student's weight, None to keep the teacher's; of
# experts ``rows(e)`` is the Pair of inputs that reach expert e
Choose = Callable[..., "torch.Tensor | None"]


def _rows_of(x: Pair, routed: Pair) -> Callable[[int], Pair]:
    """Return what picks the rows of ``x`` that the routing sends to an expert."""

    def rows(expert: int) -> Pair:
        sides: tuple[list[Any], list[Any]] = ([], [])
        for (ids, _), *both in zip(routed.teacher, x.teacher, x.student, strict=True):
            pairs = (ids.flatten() == expert).nonzero().flatten()
            per_token = ids.numel() // len(both[0])
            for side, values in zip(sides, both, strict=True):
                side.append(values[pairs // per_token])
        return Pair(*sides)

    return rows


def _part(x: Pair, head: int, ops: Any, name: str) -> Pair:
    """Return the columns of ``x`` that one head of the weight ``name`` multiplies."""
    width = ops.tensor(name).shape[-1]
    part = slice(head * width, (head + 1) * width)
    return Pair([t[:, part] for t in x.teacher], [s[:, part] for s in x.student])


class StreamOps:
    """The operations on pairs; ``choose`` is asked once per weight, in the order of the graph."""

    def __init__(
        self,
        weights: Any,
        windows: np.ndarray,
        choose: Choose,
        embedding: Callable[[str], torch.Tensor | None],
        batch: int = 8,
        teacher_only: bool = False,
    ):
        self.teacher, self.student = TorchOps(weights), TorchOps(weights)
        self._choose, self._embedding = choose, embedding
        self.teacher_only = teacher_only
        parts = [windows[i : i + batch] for i in range(0, len(windows), batch)]
        self._ids = [torch.from_numpy(np.ascontiguousarray(p, np.int64)) for p in parts]
        self._heads = {"output.weight"}
        self._shared: set[int] = set()  # layers whose keys and values later layers read, too
        self._held: dict[int, tuple[Pair, Pair]] = {}

    def run(self, architecture: Any, hp: Any) -> None:
        """Run the whole graph of a model."""
        self._shared = {m.owner for m in hp.memories if m.owner is not None}
        architecture.forward(self, hp)

    def has(self, name: str) -> bool:
        return self.teacher.has(name)

    def embed(self, name: str) -> Pair:
        """Embed the windows; ``embedding`` may replace the student's table before."""
        table = self._embedding(name)
        if table is not None:
            self.student.replace(name, table)
        self._heads.add(name)
        return self._map("embed", (name,), {})

    def linear(self, x: Any, name: str, **more: Any) -> Any:
        """Wait for the result to be used; ``more``: the bias, the rows of a fused weight."""
        if name in self._heads:  # logits of all tokens would not fit in memory, nor are they asked
            self._choose(name, self.force(x), None, 1.0)
            return _END
        return _Waiting(self.force(x), name, more)

    def add(self, a: Any, b: Any) -> Pair:
        """Add; a linear that is added to a residual stream learns of it."""
        if isinstance(b, _Waiting) and isinstance(a, Pair):
            b = self.force(b, a)
        return self._map("add", (self.force(a), self.force(b)), {})

    def scale(self, x: Any, s: float) -> Any:
        """Scale; a waiting linear goes on waiting."""
        if isinstance(x, _Waiting):
            return _Waiting(x.x, x.name, x.more, x.factor * s)
        return self._map("scale", (x, s), {})

    def gather(self, x: Any) -> Any:
        return x

    def attention(self, q: Any, k: Any, v: Any, layer: int, spec: Any) -> Pair:
        """Attend; keys and values that another layer made are given to the operation once more."""
        if k is None:
            k, v = self._held[layer]
        elif layer in self._shared:
            k, v = self._held[layer] = self.force(k), self.force(v)
        return self._map("attention", (q, k, v, layer, spec), {})

    def route(self, logits: Any, spec: Any) -> Pair:
        """Route the student's tokens as the teacher's: what one expert sees stays comparable."""
        logits = self.force(logits)
        taught = self._side("teacher", "route", [logits, spec], {})
        return Pair(taught, taught)

    def experts(self, x: Any, routed: Pair, name: str, **more: Any) -> Pair:
        """Choose every expert's weights by the rows that reach it."""
        x = self.force(x)
        chosen = self._choose(name, x, None, 1.0, _rows_of(x, routed))
        if chosen is not None:
            self.student.replace(name, chosen)
        made = self._map("experts", (x, routed, name), more)
        self.teacher.release([name])
        self.student.release([name])
        return made

    def heads(self, x: Any, name: str) -> Pair:
        """Choose every head's matrix by that head's part of the inputs."""
        x = self.force(x)
        chosen = self._choose(name, x, None, 1.0, lambda head: _part(x, head, self.teacher, name))
        if chosen is not None:
            self.student.replace(name, chosen)
        made = self._map("heads", (x, name), {})
        self.teacher.release([name])
        self.student.release([name])
        return made

    def force(self, value: Any, residual: Pair | None = None) -> Any:
        """Choose the weights of a waiting linear and return its result."""
        if not isinstance(value, _Waiting):
            return value
        chosen = self._choose(value.name, value.x, residual, value.factor)
        if chosen is not None:
            self.student.replace(value.name, chosen)
        made = self._map("linear", (value.x, value.name), value.more)
        rows = value.more.get("rows")
        if rows is None or rows[1] == self.teacher.tensor(value.name).shape[0]:
            self.teacher.release([value.name])
            self.student.release([value.name])
        return made if value.factor == 1.0 else self._map("scale", (made, value.factor), {})

    def __getattr__(self, name: str) -> Callable[..., Pair]:
        if name.startswith("_"):
            raise AttributeError(name)
        return lambda *args, **more: self._map(name, args, more)

    def _map(self, name: str, args: Sequence[Any], more: dict[str, Any]) -> Pair:
        """Run one operation on both sides, batch by batch."""
        args = [self.force(a) for a in args]
        more = {k: self.force(v) for k, v in more.items()}
        if any(a is _END for a in args):
            return _END
        teacher = self._side("teacher", name, args, more)
        student = teacher if self.teacher_only else self._side("student", name, args, more)
        return Pair(teacher, student)

    def _side(
        self, side: str, name: str, args: list[Any], more: dict[str, Any]
    ) -> list[torch.Tensor]:
        ops = getattr(self, side)
        made = []
        for i, ids in enumerate(self._ids):
            ops.ids = ids
            ops.reset()

            def pick(value: Any, i: int = i) -> Any:
                return getattr(value, side)[i] if isinstance(value, Pair) else value

            one = [pick(a) for a in args]
            made.append(getattr(ops, name)(*one, **{k: pick(v) for k, v in more.items()}))
        ops.reset()
        return made
