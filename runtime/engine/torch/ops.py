"""Operations of ``forward(ops)`` for generation on a torch device: several sequences in a step.

What needs no cache, no packed weight and no table of angles is `ggq.runtime.ops`' torch. Only
operations and types that MPS has, too. It knows no block type and no sampling.
"""

from __future__ import annotations

import functools
import importlib
import math
from collections.abc import Callable, Iterator
from collections.abc import Sequence as Rows
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch

from ggq.models.layers.base import Memory
from ggq.runtime.backends.base import Ops
from ggq.runtime.cache.kvcache import KVCache, Sequence
from ggq.runtime.cache.layout import PAGE
from ggq.runtime.cache.sizes import recent_positions
from ggq.runtime.engine.torch.weights import DeviceWeights, Matrix
from ggq.runtime.ops.attention import first_seen, slopes, visible
from ggq.runtime.ops.rope import angles
from ggq.runtime.ops.rope.torch import rotate

__all__ = ["DeviceCache", "DeviceOps", "Stretch"]

T = TypeVar("T")

_FEW = 8  # up to this many tokens decoded blocks are multiplied as float32: halves cost one pass
_SCORES = 1 << 25  # attention scores held at a time
_TINY = 1e-30
_DTYPES = {"f16": torch.float16, "f32": torch.float32}


class DeviceCache(KVCache):
    """The cache's pages on a device; keys and values are (pages, PAGE, heads, columns).

    Windowed layers begin with the pages of one sequence and grow as more are taken.
    """

    def __init__(self, layers: Rows[Memory], n_ctx: int, kind: str, device: torch.device):
        self._device = device
        super().__init__(layers, n_ctx, kind)
        self._n_recent = self._first_recent

    @property
    def _first_recent(self) -> int:
        """The pages of windowed layers to begin with."""
        return recent_positions(self.window, self.n_ctx) // PAGE

    def _pages(self, layer: int, columns: int, kind: str) -> torch.Tensor:
        n_pages = self._first_recent if self.windowed[layer] else self.n_pages
        shape = n_pages, PAGE, self._layers[layer].n_head_kv, columns
        return torch.zeros(shape, dtype=_DTYPES[kind], device=self._device)

    @property
    def nbytes(self) -> int:
        """Return the bytes of all pages on the device."""
        return sum(a.nbytes for a in (*self.keys, *self.values))

    def take(self, recent: bool = False) -> int:
        """Return a free page's number; see KVCache."""
        page = super().take(recent)
        if recent and page >= self._n_recent:
            more = min(self.n_pages, 2 * page) - self._n_recent
            self._n_recent += more
            for arrays in (self.keys, self.values):
                for i in np.flatnonzero(self.windowed).tolist():
                    new = arrays[i].new_zeros(more, *arrays[i].shape[1:])
                    arrays[i] = torch.cat((arrays[i], new))
        return page

    def new_state(self) -> torch.Tensor:
        """Return a sequence's state of the recurrent layers before its first token."""
        return torch.zeros(self.state_floats, device=self._device)


@dataclass
class Stretch:
    """One part of a step: its rows of the activations and where its sequence's tokens lie."""

    sequence: Sequence
    first: int
    past: int
    slots: tuple[np.ndarray, ...]  # places of all positions: in most layers, in windowed ones
    end: int

    @property
    def n_tokens(self) -> int:
        return self.end - self.first


@dataclass
class _One:
    """What a recurrent op sees: one sequence."""

    tensor: Callable[[str], torch.Tensor]
    cache: dict[Any, torch.Tensor]
    ids: tuple[None] = (None,)


class DeviceOps(Ops):
    """Activations are float32 (n_tokens, width), the parts of the step one after the other."""

    backend = "torch"

    def __init__(self, on_device: DeviceWeights, cache: DeviceCache):
        super().__init__(on_device.weights)
        self.pictures = None  # they are looked at on a CPU
        self._on_device, self._cache, self.device = on_device, cache, on_device.device

    def fill(self, parts: list[Any]) -> int:
        """Take a step's parts, their sequences having room; return how many logits rows follow."""
        self._stretches, first = [], 0
        for part in parts:
            past, n = part.sequence.length, len(part.ids)
            at = np.arange(past + n)
            tables = part.sequence.table, part.sequence.recent
            slots = tuple(t[at // PAGE] * PAGE + at % PAGE for t in tables if len(t))
            self._stretches.append(Stretch(part.sequence, first, past, slots, first + n))
            first += n
        self.positions = np.concatenate([s.past + np.arange(s.n_tokens) for s in self._stretches])
        self.types = np.concatenate([part.kinds for part in parts])
        self._ids = self._put(np.concatenate([part.ids for part in parts]).astype(np.int64))
        wanted = np.flatnonzero(np.concatenate([part.wanted for part in parts]))
        # one row at least: some operations cannot tell the shape of none
        self._wanted = None if len(wanted) == first else self._put(wanted if len(wanted) else [0])
        new = zip(*([t[s.past :] for t in s.slots] for s in self._stretches), strict=True)
        self._new_slots = [self._put(np.concatenate(slots)) for slots in new]
        self._memory: dict[Any, Any] = {}  # what operations of one step share
        return len(wanted)

    def _put(self, values: np.ndarray | list[int]) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(self.device)

    def _once(self, key: Any, make: Callable[[], T]) -> T:
        if key not in self._memory:
            self._memory[key] = make()
        made: T = self._memory[key]
        return made

    def tensor(self, name: str) -> torch.Tensor:
        """Return a small tensor (gains, biases, factors) as float32."""
        return self._on_device.floats(self.weight(name), name)

    def _matrix(self, name: str) -> Matrix:
        return self._on_device.matrix(self.weight(name), name)

    # -- operations

    def embed(self, name: str, of: str = "ids") -> torch.Tensor:
        """Return the rows of the table at what ``of`` names: ids, positions or types."""
        return self._matrix(name).take(self._ids if of == "ids" else self._put(getattr(self, of)))

    def gather(self, x: torch.Tensor) -> torch.Tensor:
        """Return the rows whose logits are asked for."""
        return x if self._wanted is None else x.index_select(0, self._wanted)

    def linear(
        self,
        x: torch.Tensor,
        name: str,
        bias: str | None = None,
        rows: tuple[int, int] | None = None,
    ) -> torch.Tensor:
        """Return x @ W.T + b."""
        matrix = self._matrix(name)
        first, end = rows or (0, len(matrix))
        y = self._product(x, matrix, first, end)
        return y if bias is None else y + self.tensor(bias)[first:end]

    def _product(self, x: torch.Tensor, matrix: Matrix, first: int, end: int) -> torch.Tensor:
        """Return x @ W[first:end].T as float32."""
        parts = []
        for rows in matrix.chunks(first, end):
            if rows.dtype == torch.float16 or (matrix.packed and len(x) > _FEW):
                halves, size = self._halves(x)
                parts.append((halves @ rows.half().T) * size)  # float32 by promotion
            else:
                parts.append(x @ rows.float().T)
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def _halves(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return x in float16 as rows that reach 1 at most, and what they were divided by."""
        known = self._memory.get("halves")
        if known is None or known[0] is not x:  # queries, keys and values share an input
            size = x.abs().amax(dim=-1, keepdim=True).clamp(min=_TINY)
            known = self._memory["halves"] = x, (x / size).half(), size
        return known[1:]

    def rope(self, x: torch.Tensor, n_head: int, rope: Any) -> torch.Tensor:
        """Return x with the pairs of each head rotated."""

        def table() -> tuple[torch.Tensor, torch.Tensor]:
            factors = None if rope.factors is None else self.weight(rope.factors).dequantized()
            cos, sin = angles(rope, self.positions, factors)
            return self._angles(cos), self._angles(sin)

        return rotate(x, n_head, rope, self._once(rope, table))

    def _angles(self, table: np.ndarray) -> torch.Tensor:
        return self._put(table.astype(np.float32))[:, None, :]

    def attention(
        self,
        q: torch.Tensor,
        k: torch.Tensor | None,
        v: torch.Tensor | None,
        layer: int,
        spec: Any,
    ) -> torch.Tensor:
        """Append k and v to the cache of ``layer`` (None: they are there) and mix its values."""
        stores, recent = [], self._cache.windowed[layer]
        for rows, pages in ((k, self._cache.keys[layer]), (v, self._cache.values[layer])):
            store = pages.flatten(0, 1)
            if rows is not None:
                store[self._new_slots[recent]] = rows.reshape(-1, *store.shape[1:]).to(store.dtype)
            stores.append(store)
        mixed = [self._mix(q, stores, (s, recent), spec) for s in self._stretches]
        return mixed[0] if len(mixed) == 1 else torch.cat(mixed)

    def _mix(
        self, q: torch.Tensor, stores: list[torch.Tensor], place: tuple[Stretch, bool], spec: Any
    ) -> torch.Tensor:
        """Return the attention of one sequence's tokens, (n_tokens, n_head * head_dim_v)."""
        stretch, _ = place
        start = first_seen(stretch.past, spec)  # positions before it are in nobody's window
        keys, values = (self._cached(store, place, start) for store in stores)
        parts = []
        per_step = max(1, _SCORES // (spec.n_head * len(keys[0])))
        for first in range(stretch.first, stretch.end, per_step):
            end = min(stretch.end, first + per_step)
            whole = not spec.causal and spec.window is None
            seen = None if whole else self._seen(stretch, start, spec)
            if seen is not None:
                seen = seen[first - stretch.first : end - stretch.first]
            lower = self._lowering(stretch, (first, end), start, spec) if spec.alibi else None
            parts.append(self._attend(q[first:end], (keys, values), (seen, lower), spec))
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _cached(self, store: torch.Tensor, place: tuple[Stretch, bool], start: int) -> torch.Tensor:
        """Return a sequence's keys or values from position ``start`` on, float32 (heads, n, d)."""
        stretch, recent = place
        slots = stretch.slots[recent][start:]
        if slots[-1] - slots[0] == len(slots) - 1 and (np.diff(slots) == 1).all():
            rows = store[int(slots[0]) : int(slots[-1]) + 1]
        else:
            rows = store.index_select(
                0, self._once((stretch.first, start, recent), lambda: self._put(slots))
            )
        return rows.transpose(0, 1).float()

    def _seen(self, stretch: Stretch, start: int, spec: Any) -> torch.Tensor | None:
        """Return which positions from ``start`` on each token sees; None: all."""
        if stretch.n_tokens == 1:
            return None
        key = "seen", stretch.first, spec.window, spec.causal, spec.chunked
        n, past = stretch.n_tokens, stretch.past
        return self._once(key, lambda: self._put(visible(n, past, spec)[:, start:]))

    def _lowering(
        self, stretch: Stretch, rows: tuple[int, int], start: int, spec: Any
    ) -> torch.Tensor:
        """Return what ALiBi takes from the scores of ``rows``, (n_head, rows, positions)."""
        own = stretch.past + np.arange(rows[0] - stretch.first, rows[1] - stretch.first)[:, None]
        far = abs(np.arange(start, stretch.past + stretch.n_tokens) - own)
        steep = slopes(spec.n_head, spec.alibi)[:, None, None]
        return self._put((steep * far).astype(np.float32))

    def _attend(
        self,
        q: torch.Tensor,
        cached: tuple[torch.Tensor, torch.Tensor],
        masks: tuple[torch.Tensor | None, torch.Tensor | None],
        spec: Any,
    ) -> torch.Tensor:
        (keys, values), (seen, lower) = cached, masks
        n_tokens, n_kv, per_key = len(q), spec.n_head_kv, spec.n_head // spec.n_head_kv
        queries = q.reshape(n_tokens, n_kv, per_key, -1) * spec.scale
        queries = queries.permute(1, 2, 0, 3).flatten(1, 2)  # (n_head_kv, queries, head_dim)
        scores = (queries @ keys.transpose(1, 2)).reshape(n_kv, per_key, n_tokens, -1)
        if spec.softcap:
            scores = spec.softcap * torch.tanh(scores / spec.softcap)
        if lower is not None:
            scores = scores - lower.reshape(n_kv, per_key, n_tokens, -1)
        if seen is not None:
            scores = scores.masked_fill(seen.logical_not(), float("-inf"))
        if spec.sinks is not None:  # one more logit per head in the sum
            sinks = self.tensor(spec.sinks).reshape(spec.n_head_kv, per_key, 1, 1)
            scores = torch.cat((scores, sinks.expand(-1, -1, n_tokens, 1)), dim=-1)
        weights = torch.softmax(scores, dim=-1)[..., : keys.shape[1]]
        mixed = (weights.flatten(1, 2) @ values).reshape(n_kv, per_key, n_tokens, -1)
        rows: torch.Tensor = mixed.permute(2, 0, 1, 3).reshape(n_tokens, -1)
        return rows

    def __getattr__(self, name: str) -> Callable[..., Any]:
        run = super().__getattr__(name)
        module = importlib.import_module(f"ggq.runtime.ops.{name}.torch")
        if hasattr(module, "state"):
            run = functools.partial(self._recur, name, module)
            setattr(self, name, run)
        return run

    def _recur(self, name: str, op: Any, *args: Any, **more: Any) -> torch.Tensor:
        """Run torch's recurrent op on each sequence by itself; its state moves on."""
        outputs = []
        layer, which, shape = op.state(self, *args, **more)
        start = self._cache.state_offsets[layer][which] // 4
        for stretch in self._stretches:
            state = stretch.sequence.state[start : start + math.prod(shape)].view(1, *shape)
            one = _One(self.tensor, {(name, layer): state})
            rows = slice(stretch.first, stretch.end)
            own = (a[rows] if isinstance(a, torch.Tensor) else a for a in args)
            outputs.append(op.run(one, *own, **more))
            state.copy_(one.cache[name, layer])
        return torch.cat(outputs)

    def experts(
        self,
        x: torch.Tensor,
        routed: Any,
        name: str,
        bias: str | None = None,
        rows: tuple[int, int] | None = None,
    ) -> torch.Tensor:
        """Return a row per pair of token and expert, token-major."""
        matrix, n_out = self._matrix(name), self.weight(name).shape[1]
        first, end = rows or (0, n_out)
        chosen = routed[0]
        per_token = chosen.numel() // len(x)  # 1: x has a row per pair
        out = x.new_empty(chosen.numel(), end - first)
        for expert, pairs, tokens in self._groups(chosen, per_token):
            at = expert * n_out
            y = self._product(x.index_select(0, tokens), matrix, at + first, at + end)
            out[pairs] = y if bias is None else y + self.tensor(bias)[expert, first:end]
        return out

    def _groups(self, chosen: torch.Tensor, per_token: int) -> Iterator[tuple[int, Any, Any]]:
        """Yield each chosen expert, its pairs and their rows of x; one copy to the host a layer."""
        known = self._memory.get("chosen")
        if known is None or known[0] is not chosen:
            ids = chosen.cpu().numpy().ravel()
            pairs = [(int(e), self._put(np.flatnonzero(ids == e))) for e in np.unique(ids)]
            known = self._memory["chosen"] = chosen, pairs
        for expert, mine in known[1]:
            rows = mine if per_token == 1 else torch.div(mine, per_token, rounding_mode="floor")
            yield expert, mine, rows
