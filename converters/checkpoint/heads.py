"""Where rows of queries, keys and values lie in a checkpoint: halves or pairs, in turns, in one.

It knows head counts, no names, no files and no values.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ggq.models.hparams import HParams
from ggq.models.layers.attention import Attention
from ggq.models.transform import RowMap, Transform

__all__ = ["TRANSFORMS"]


class _Heads(NamedTuple):
    """A layer's heads: ``n_head`` of queries, ``n_kv`` of keys and values, all ``width`` wide.

    ``rotated``: how many columns of each rotate; all where none do, as llama.cpp orders them.
    """

    n_head: int
    n_kv: int
    width: int
    rotated: int

    @property
    def rows(self) -> dict[str, int]:
        """How many rows queries, keys and values have."""
        return {"q": self.n_head * self.width, **dict.fromkeys("kv", self.n_kv * self.width)}


def _heads(hp: HParams, layer: int) -> _Heads:
    attention = hp.blocks[layer].find(Attention)
    assert attention is not None
    width = attention.head_dim
    rotated = attention.rope.dims if attention.rope else width
    return _Heads(attention.n_head, attention.n_head_kv, width, rotated)


def _to_pairs(heads: _Heads) -> RowMap:
    """Map rows of adjacent rope pairs to HF's halves: out[h, i, s] = in[h, s, i].

    What does not rotate stays at the end of each head.
    """
    width, dims = heads.width, heads.rotated

    def source(row: np.ndarray) -> np.ndarray:
        head, within = np.divmod(row, width)
        pair, side = np.divmod(within, 2)
        return head * width + np.where(within < dims, side * (dims // 2) + pair, within)

    return source


def _to_halves(heads: _Heads) -> RowMap:
    """Invert `_to_pairs`."""
    width, dims = heads.width, heads.rotated

    def source(row: np.ndarray) -> np.ndarray:
        head, within = np.divmod(row, width)
        side, pair = np.divmod(within, dims // 2)
        return head * width + np.where(within < dims, 2 * pair + side, within)

    return source


def _in_turns(heads: _Heads) -> RowMap:
    """Map rows of q, k and v to HF's groups: the queries of one key, that key, its value."""
    per = heads.n_head // heads.n_kv

    def source(row: np.ndarray) -> np.ndarray:
        head, i = np.divmod(row, heads.width)
        keys, values = head - heads.n_head, head - heads.n_head - heads.n_kv
        slot = np.where(keys < 0, head // per * (per + 2) + head % per, keys * (per + 2) + per)
        slot = np.where(values < 0, slot, values * (per + 2) + per + 1)
        return slot * heads.width + i

    return source


def _in_order(heads: _Heads) -> RowMap:
    """Invert `_in_turns`."""
    per = heads.n_head // heads.n_kv

    def source(row: np.ndarray) -> np.ndarray:
        slot, i = np.divmod(row, heads.width)
        group, place = np.divmod(slot, per + 2)
        after = heads.n_head + np.where(place == per, 0, heads.n_kv) + group
        return np.where(place < per, group * per + place, after) * heads.width + i

    return source


def _taken(name: str, pairs: bool, turns: bool) -> Transform:
    """Return the transform of q, k or v out of one tensor of all three; see `_to_pairs`."""

    def rows(hp: HParams, layer: int, n: int) -> RowMap:
        heads = _heads(hp, layer)
        first = {"q": 0, "k": heads.rows["q"], "v": heads.rows["q"] + heads.rows["k"]}[name]
        mixed = _to_pairs(heads) if pairs and name != "v" else None
        turned = _in_turns(heads) if turns else None

        def source(row: np.ndarray) -> np.ndarray:
            at = first + (mixed(row) if mixed else row)
            return turned(at) if turned else at

        return source

    return Transform(rows=rows, whole=lambda hp, i: sum(_heads(hp, i).rows.values()))


PERMUTED = Transform(
    rows=lambda hp, i, n: _to_pairs(_heads(hp, i)),
    undo_rows=lambda hp, i, n: _to_halves(_heads(hp, i)),
)
TRANSFORMS = {
    "permute_q": PERMUTED,
    "permute_k": PERMUTED,
    "each_head": Transform(
        rows=lambda hp, i, n: _in_turns(_heads(hp, i)),
        undo_rows=lambda hp, i, n: _in_order(_heads(hp, i)),
    ),
    **{f"part_{n}": _taken(n, pairs=False, turns=False) for n in "qkv"},
    **{f"packed_{n}": _taken(n, pairs=True, turns=False) for n in "qkv"},
    **{f"grouped_{n}": _taken(n, pairs=True, turns=True) for n in "qkv"},
}
