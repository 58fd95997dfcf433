"""The rows that an architecture is described with: keys of its file and tensors.

It knows no architecture, no tensor values and no file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from ggq.errors import ModelError, printable
from ggq.models.layers.base import Part

__all__ = [
    "BLOCK",
    "LAYER",
    "MAX_LAYERS",
    "Key",
    "Tensor",
    "absorbed_by",
    "beside",
    "changed",
    "checked_value",
    "config_value",
    "conv1d",
    "each_head",
    "norm",
    "permuted",
    "plus_one",
    "renamed",
    "rows",
    "sourced",
    "taken_from",
]

BLOCK, LAYER = "blk.{i}.", "model.layers.{i}."
MAX_LAYERS = 4096
PER_LAYER = "s"  # a key type ending in this letter holds one value or one value per layer


@dataclass(frozen=True)
class Key:
    """One GGUF key: where HF's config holds it and which hyper-parameter it fills.

    ``hf``: dotted paths in config.json, the first found wins. ``derive(config)`` gives the value
    where no path does (None: the key is left out). ``type`` is u32, f32, bool or str; u32s, f32s
    and bools also take one value per layer, bools a number n too: all but every n-th layer; reals
    are f32s that may be infinite.
    ``default`` fills the hyper-parameter when a GGUF has no such key. ``to_hf(value)`` maps the
    value back at export.
    """

    gguf: str
    hf: tuple[str, ...] = ()
    attr: str | None = None
    type: str = "u32"
    required: bool = False
    default: Any = None
    derive: Callable[[Mapping[str, Any]], Any] | None = None
    to_hf: Callable[[Any], Any] | None = None


@dataclass(frozen=True)
class Tensor:
    """One row of the tensor table; ``{i}`` stands for the layer and ``{e}`` for the expert.

    ``hf``: the source tensors, in order; () for a tensor that ``transform`` generates from the
    config. ``shape``: names of dimensions, rows first (see `HParams.dim`). ``role``: the mixture's
    category. ``input``: rows with the same label (per layer) multiply the same activations.
    ``absorbs``: the tensor that can take over a scale of this one's input columns. ``f32``: stays
    float32 in every file type. ``part``: the row exists in layers that have such a part only.
    ``fused``: (HF name, transform) of one tensor that may stand in the place of ``hf``.
    ``hf_shape``: the tensor's shape in a checkpoint, where it is another of the same values.
    ``factor(config)``: a number that the file's values are larger by, or one for each row.
    """

    gguf: str
    hf: tuple[str, ...]
    shape: tuple[str, ...]
    transform: str = "copy"
    role: str = "other"
    input: str | None = None
    absorbs: str | None = None
    optional: bool = False
    f32: bool = False
    part: type[Part] | None = None
    fused: tuple[str, str] | None = None
    hf_shape: tuple[str, ...] | None = None
    factor: Callable[[Mapping[str, Any]], Any] | None = None

    @property
    def per_layer(self) -> bool:
        return "{i}" in self.gguf


Row = TypeVar("Row", Key, Tensor)


def changed(table: tuple[Row, ...], *new: Row, without: tuple[str, ...] = ()) -> tuple[Row, ...]:
    """Return ``table`` with ``new`` rows in the place of their namesakes or at the end.

    ``without``: GGUF names to leave out; tensors' may be given without ``blk.{i}.``.
    """
    by_name: dict[str, Row] = {row.gguf: row for row in table}
    by_name.update({row.gguf: row for row in new})
    return tuple([r for name, r in by_name.items() if name.removeprefix(BLOCK) not in without])


def _in_layer(prefix: str, name: str) -> str:
    """Return ``name`` inside a layer, unless it says itself where it stands."""
    return name if "{i}" in name else prefix + name


def rows(
    gguf: str, hf: str, shape: tuple[str, ...], *, bias: bool = True, **more: Any
) -> tuple[Tensor, ...]:
    """Return the row of a layer's weight and, with ``bias``, that of the bias it may have.

    Names are given without ``blk.{i}.``, ``model.layers.{i}.`` and ``.weight``.
    """
    if more.get("absorbs"):
        more["absorbs"] = _in_layer(BLOCK, more["absorbs"]) + ".weight"
    name, source = _in_layer(BLOCK, gguf), _in_layer(LAYER, hf)
    weight = Tensor(f"{name}.weight", (f"{source}.weight",), shape, **{"role": gguf, **more})
    if not bias:
        return (weight,)
    shift = Tensor(f"{name}.bias", (f"{source}.bias",), shape[:1], role="bias")
    return weight, replace(shift, optional=True, f32=True, part=more.get("part"))


def norm(gguf: str, hf: str, dim: str = "embd", **more: Any) -> tuple[Tensor, ...]:
    """Return the row of a layer's norm, names as in `rows`; with ``bias`` also that of its bias."""
    return rows(gguf, hf, (dim,), **{"bias": False, "role": "norm", "f32": True, **more})


def renamed(table: tuple[Tensor, ...], names: Mapping[str, str]) -> tuple[Tensor, ...]:
    """Return ``table`` with parts of its HF names replaced, one after the other."""

    def other(name: str) -> str:
        for old, new in names.items():
            name = name.replace(old, new)
        return name

    def one(row: Tensor) -> Tensor:
        fused = row.fused and (other(row.fused[0]), row.fused[1])
        return replace(row, hf=tuple(map(other, row.hf)), fused=fused)

    return tuple(map(one, table))


def absorbed_by(table: tuple[Tensor, ...], names: Mapping[str, str | None]) -> tuple[Tensor, ...]:
    """Return ``table`` with other tensors to take over scales, or none: old name -> new one."""
    full = {
        _in_layer(BLOCK, k) + ".weight": v and _in_layer(BLOCK, v) + ".weight"
        for k, v in names.items()
    }
    return tuple(replace(row, absorbs=full.get(row.absorbs or "", row.absorbs)) for row in table)


def beside(table: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Return a feed-forward's ``table`` where it sees what the attention sees."""
    seen = {"ffn_in": "attn_in"}
    moved = tuple(replace(row, input=seen.get(row.input or "", row.input)) for row in table)
    return absorbed_by(moved, {"ffn_norm": "attn_norm"})


def permuted(table: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Return ``table`` with q and k reordered from HF's half-split rope to adjacent pairs."""
    names = {"attn_q": "permute_q", "attn_k": "permute_k"}
    kinds = {f"{BLOCK}{n}.{s}": t for n, t in names.items() for s in ("weight", "bias")}
    return tuple(replace(row, transform=kinds.get(row.gguf, row.transform)) for row in table)


def each_head(table: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Return ``table`` with the rows of qkv, HF's head by head, brought to q, k and v."""
    names = {f"{BLOCK}attn_qkv.weight", f"{BLOCK}attn_qkv.bias"}
    return tuple(replace(r, transform="each_head") if r.gguf in names else r for r in table)


def conv1d(table: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Return ``table`` with the matrices of layers transposed, as GPT-2 stores them."""
    matrix = {row.gguf for row in table if row.per_layer and len(row.shape) == 2}
    return tuple(replace(r, transform="conv1d") if r.gguf in matrix else r for r in table)


def sourced(table: tuple[Key, ...], names: Mapping[str, str]) -> tuple[Key, ...]:
    """Return ``table`` with other names in config.json: usual one -> this class's."""
    return tuple(replace(k, hf=tuple(names.get(name, name) for name in k.hf)) for k in table)


def taken_from(hf: str, table: tuple[Tensor, ...], kind: str) -> tuple[Tensor, ...]:
    """Return ``table`` with the rows of q, k and v out of one tensor of a layer, called ``hf``.

    ``kind``: "packed", one after the other, or "grouped", each key and value after its queries.
    """
    places = {f"{BLOCK}attn_{n}.{s}": (n, s) for n in "qkv" for s in ("weight", "bias")}

    def taken(row: Tensor) -> Tensor:
        if row.gguf not in places:
            return row
        name, suffix = places[row.gguf]
        return replace(row, hf=(f"{LAYER}{hf}.{suffix}",), transform=f"{kind}_{name}")

    return tuple(map(taken, table))


def plus_one(table: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Return ``table`` with the norms that HF stores around 0 moved to lie around 1."""
    return tuple(replace(r, transform="plus_one") if r.role == "norm" else r for r in table)


def config_value(config: Mapping[str, Any], key: Key) -> Any:
    """Return what the flat ``config`` says for ``key``: the first path found, else ``derive``."""
    for path in key.hf:
        value: Any = config
        for part in path.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        if value is not None:
            return value
    return key.derive(config) if key.derive else None


def checked_value(name: str, value: Any, kind: str) -> Any:
    """Return ``value`` as ``kind`` asks for it, a per-layer list as a tuple; ModelError."""
    base = kind.removesuffix(PER_LAYER)
    listed = not isinstance(value, (str, bytes)) and hasattr(value, "__len__")
    if kind.endswith(PER_LAYER) and listed:
        if len(value) > MAX_LAYERS:
            raise ModelError(f"{name} has {len(value)} values")
        value = value.texts() if hasattr(value, "texts") else value  # a file's strings are bytes
        plain = (v.item() if hasattr(v, "item") else v for v in value)
        return tuple(checked_value(name, v, base) for v in plain)
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind == "bools" and number:
        base = "u32"
    whole = number and float(value).is_integer() and 0 <= value < 1 << 32
    finite = number and value - value == 0
    right = {
        "u32": whole,
        "f32": finite,
        "real": number and value == value,
        "bool": isinstance(value, bool),
        "str": isinstance(value, str),
    }
    if not right[base]:
        raise ModelError(f"{name} is {printable(repr(value))}, expected {base}")
    made: dict[str, Callable[[Any], Any]] = {"u32": int, "bool": bool, "str": str}
    return made.get(base, float)(value)
