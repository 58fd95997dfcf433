"""What an architecture is, as data: keys, tensors and hyper-parameters, for converter and runtime.

It knows no tensor values, no back end and no file: a source is an HF config (a mapping) or an
object with the ``metadata`` and ``tensors`` of a GGUF file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any

from ggq.errors import ModelError, printable
from ggq.models.hparams import (
    MAX_LAYERS,
    Attention,
    Delta,
    HParams,
    Latent,
    Rope,
    Routing,
    check,
)
from ggq.models.vocabulary import Vocabulary

__all__ = [
    "Architecture",
    "Attention",
    "Delta",
    "HParams",
    "Key",
    "Latent",
    "Rope",
    "Routing",
    "Tensor",
    "Vocabulary",
    "config_value",
]

IGNORED_SUFFIXES = (".attention.masked_bias", ".attention.bias", ".rotary_emb.inv_freq")
IGNORED_PARTS = (
    "visual.",
    "vision_",
    "vision.",
    "audio_",
    "multi_modal_projector.",
    "patch_merger.",
)
PER_LAYER = "s"  # a key type ending in this letter holds one value or one value per layer


@dataclass(frozen=True)
class Key:
    """One GGUF key: where HF's config holds it and which hyper-parameter it fills.

    ``hf``: dotted paths in config.json, the first found wins. ``derive(config)`` gives the value
    where no path does (None: the key is left out). ``type`` is u32, f32, bool or str; u32s, f32s
    and bools also take one value per layer, bools a number n too: all but every n-th layer.
    ``default`` fills the hyper-parameter when a GGUF has no such key. ``to_hf(value)`` maps the
    value back at export.
    """

    gguf: str
    hf: tuple[str, ...] = ()
    attr: str | None = None
    type: str = "u32"
    required: bool = False
    default: Any = None
    derive: Callable[[Mapping], Any] | None = None
    to_hf: Callable[[Any], Any] | None = None


@dataclass(frozen=True)
class Tensor:
    """One row of the tensor table; ``{i}`` stands for the layer and ``{e}`` for the expert.

    ``hf``: the source tensors, in order; () for a tensor that ``transform`` generates from the
    config. ``shape``: names of dimensions, rows first (see `HParams.dim`). ``role``: the mixture's
    category. ``input``: rows with the same label (per layer) multiply the same activations.
    ``absorbs``: the tensor that can take over a scale of this one's input columns. ``f32``: stays
    float32 in every file type. ``only``: "dense" or "experts", "attention" or "recurrent", where
    the row exists in one kind of layer only. ``fused``: (HF name, transform) of one tensor that
    may stand in the place of ``hf``.
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
    only: str | None = None
    fused: tuple[str, str] | None = None

    @property
    def per_layer(self) -> bool:
        return "{i}" in self.gguf


class Architecture:
    """One architecture: subclasses fill the class attributes and write ``forward``."""

    name: str = ""
    hf_classes: tuple[str, ...] = ()
    hf_model_type: str = ""
    rope_kind: str = "norm"
    exports: bool = True  # whether the tables read backwards give the HF folder again
    window_period: int = 0  # all layers but every n-th have the window; 0: no window or all layers
    keys: tuple[Key, ...] = ()
    tensors: tuple[Tensor, ...] = ()
    config_defaults: Mapping[str, Any] = {}  # what the HF config class fills in by itself
    hf_prefixes: tuple[str, ...] = ("", "language_model.", "model.language_model.")
    vocab = Vocabulary()

    def forward(self, ops: Any, hp: HParams) -> Any:
        """Record one evaluation on ``ops``; return the logits, (n_gathered, n_vocab) f32."""
        raise NotImplementedError(self.name)

    def finish(self, values: dict[str, Any]) -> dict[str, Any]:
        """Return ``values`` (attribute -> value) plus what this architecture fixes in code."""
        return values

    def metadata(self, config: Mapping[str, Any]) -> list[tuple[str, Any, str]]:
        """Return (GGUF key, value, type) of every key ``config`` gives; ModelError if one lacks."""
        config = self.config(config)
        found = []
        for key in self.keys:
            value = config_value(config, key)
            name = key.gguf.format(arch=self.name)
            if value is not None:
                found.append((name, _checked(name, value, key.type), key.type))
            elif key.required:
                raise ModelError(f"config.json has no {printable(' or '.join(key.hf))} ({name})")
        return found

    def export_config(self, hp: HParams) -> dict[str, Any]:
        """Return what config.json needs beyond the key table and the usual settings."""
        return {}

    def ignores(self, hf_name: str, hp: HParams) -> bool:
        """Tell whether a checkpoint tensor is left out on purpose: buffers, other modalities."""
        return hf_name.endswith(IGNORED_SUFFIXES) or any(p in hf_name for p in IGNORED_PARTS)

    def config(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return ``config`` flat: text_config merged, defaults filled, ``rope_parameters`` made."""
        text = config.get("text_config")
        flat = {**config, **text} if isinstance(text, Mapping) else dict(config)
        for name, value in self.config_defaults.items():
            if flat.get(name) is None:
                flat[name] = value
        rope = flat.get("rope_parameters") or flat.get("rope_scaling")
        rope = dict(rope) if isinstance(rope, Mapping) else {}
        if isinstance(rope.get("full_attention"), Mapping):  # one set per kind of layer
            local = rope.get("sliding_attention")
            flat["rope_local"] = dict(local) if isinstance(local, Mapping) else {}
            rope = dict(rope["full_attention"])
        rope.setdefault("rope_type", rope.get("type"))
        for name in ("rope_theta", "partial_rotary_factor", "original_max_position_embeddings"):
            if rope.get(name) is None and flat.get(name) is not None:
                rope[name] = flat[name]
        flat["rope_parameters"] = {k: v for k, v in rope.items() if v is not None}
        flat["window_period"] = self.window_period
        return flat

    def hparams(self, source: Any) -> HParams:
        """Return the hyper-parameters of an HF config (mapping) or a GGUFFile; ModelError."""
        values = (
            self._values_hf(source) if isinstance(source, Mapping) else self._values_gguf(source)
        )
        for key in self.keys:
            if key.attr and values.get(key.attr) is None and key.default is not None:
                values[key.attr] = key.default
        values = self.finish(_completed(self, values))
        names = {f.name for f in fields(HParams)}
        extra = {k: v for k, v in values.items() if k not in names}
        known = {k: v for k, v in values.items() if k in names and v is not None}
        lacking = sorted({f.name for f in fields(HParams) if _needed(f)} - {"arch", *known})
        if lacking:
            raise ModelError(f"{self.name}: nothing says {', '.join(lacking)}")
        hp = HParams(arch=self.name, extra=extra, **known)
        check(hp)
        return hp

    def _values_hf(self, config: Mapping[str, Any]) -> dict[str, Any]:
        by_name = {name: value for name, value, _ in self.metadata(config)}
        values: dict[str, Any] = {}
        for key in self.keys:
            if key.attr and values.get(key.attr) is None:
                values[key.attr] = by_name.get(key.gguf.format(arch=self.name))
        flat = self.config(config)
        values.setdefault("n_vocab", flat.get("vocab_size"))
        if values["n_vocab"] is None:
            values["n_vocab"] = flat.get("vocab_size")
        return values

    def _values_gguf(self, source: Any) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key in self.keys:
            name = key.gguf.format(arch=self.name)
            if key.attr and values.get(key.attr) is None and name in source.metadata:
                values[key.attr] = _checked(name, source.metadata[name], key.type)
            elif key.required and name not in source.metadata:
                raise ModelError(f"the file has no key {name}")
        embedding = source.tensors.get("token_embd.weight")
        if embedding is not None and len(embedding.shape) == 2:
            values["n_vocab"] = int(embedding.shape[0])
        elif values.get("n_vocab") is None:
            values["n_vocab"] = len(source.metadata.get("tokenizer.ggml.tokens", ()))
        return values

    def rows(self, hp: HParams) -> Iterator[tuple[str, Tensor, int | None]]:
        """Yield (GGUF name, table row, layer or None) of every tensor a file may hold."""
        for row in self.tensors:
            if not row.per_layer:
                yield row.gguf, row, None
        for i in range(hp.n_layer):
            kinds = (None, "experts" if hp.mixes(i) else "dense")
            kinds += ("recurrent" if hp.recurrent(i) else "attention",)
            for row in self.tensors:
                if row.per_layer and row.only in kinds:
                    yield row.gguf.format(i=i), row, i

    def shape(self, row: Tensor, hp: HParams, layer: int | None) -> tuple[int, ...]:
        """Return the tensor's shape, rows first and row length last, as the file must have it."""
        return tuple(hp.dim(name, layer or 0) for name in row.shape)

    def sources(self, row: Tensor, hp: HParams, layer: int | None) -> list[str]:
        """Return the HF names (without prefix) that make this tensor, experts in order."""
        experts = range(hp.n_expert) if any("{e}" in p for p in row.hf) else (0,)
        return [p.format(i=layer, e=e) for e in experts for p in row.hf]

    def check(self, gguf: Any, hp: HParams) -> None:
        """Raise ModelError where a tensor of ``gguf`` is missing or its shape is not ``hp``'s."""
        for name, row, layer in self.rows(hp):
            found = gguf.tensors.get(name)
            if found is None:
                if not row.optional:
                    raise ModelError(f"the file has no tensor {name}")
                continue
            want = self.shape(row, hp, layer)
            if tuple(int(n) for n in found.shape) != want:
                raise ModelError(
                    f"tensor {name} has shape {tuple(found.shape)}, the model needs {want}"
                )


def _needed(field: Any) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def config_value(config: Mapping[str, Any], key: Key) -> Any:
    """Return what the flat ``config`` says for ``key``: the first path found, else ``derive``."""
    for path in key.hf:
        value: Any = config
        for part in path.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        if value is not None:
            return value
    return key.derive(config) if key.derive else None


def _checked(name: str, value: Any, kind: str) -> Any:
    """Return ``value`` as ``kind`` asks for it, a per-layer list as a tuple; ModelError."""
    base = kind.removesuffix(PER_LAYER)
    if (
        kind.endswith(PER_LAYER)
        and not isinstance(value, (str, bytes))
        and hasattr(value, "__len__")
    ):
        if len(value) > MAX_LAYERS:
            raise ModelError(f"{name} has {len(value)} values")
        return tuple(_checked(name, v.item() if hasattr(v, "item") else v, base) for v in value)
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind == "bools" and number:
        base = "u32"
    whole = number and float(value).is_integer() and 0 <= value < 1 << 32
    finite = number and value - value == 0
    right = {
        "u32": whole,
        "f32": finite,
        "bool": isinstance(value, bool),
        "str": isinstance(value, str),
    }
    if not right[base]:
        raise ModelError(f"{name} is {printable(repr(value))}, expected {base}")
    return {"u32": int, "f32": float, "bool": bool, "str": str}[base](value)


def _completed(arch: Architecture, values: dict[str, Any]) -> dict[str, Any]:
    """Return ``values`` with head sizes and the Rope that follow from the others."""
    get = values.get
    n_head, n_embd = get("n_head"), get("n_embd")
    heads = (n_head[0] if n_head else 0) if isinstance(n_head, tuple) else n_head
    if not heads or not n_embd:
        raise ModelError(
            f"{arch.name}: head count {heads} and embedding length {n_embd} must be at least 1"
        )
    if not get("head_dim"):
        if n_embd % heads:
            raise ModelError(
                f"{arch.name}: embedding length {n_embd} is no multiple of the head count {heads}"
            )
        values["head_dim"] = n_embd // heads
    values["n_head_kv"] = n_head if get("n_head_kv") is None else values["n_head_kv"]
    values["head_dim_v"] = get("head_dim_v") or values["head_dim"]
    values["rope_dim"] = get("rope_dim") or values["head_dim"]
    local_base = values.pop("rope_local_base", None)
    local_dims = values.pop("rope_local_dims", None) or values["rope_dim"]
    rope = {
        f.name: values.pop("rope_" + f.name, None)
        for f in fields(Rope)
        if f.name not in ("kind", "dims")
    }
    rope = {k: v for k, v in rope.items() if v is not None}
    if rope.get("factor", 1.0) in (0.0, 1.0):
        rope.pop("factor", None)
    if (
        rope.get("scaling", "linear") == "linear"
    ):  # a factor without a type means linear, as llama.cpp reads it
        rope["scaling"] = "linear" if "factor" in rope else "none"
    rope.setdefault("original_context", get("n_ctx_train") or 0)
    values["rope"] = Rope(kind=arch.rope_kind, dims=values["rope_dim"], **rope)
    if local_base is not None:
        values["rope_local"] = Rope(kind=arch.rope_kind, dims=local_dims, base=local_base)
    if arch.window_period and not isinstance(get("window_layers"), tuple):
        period = get("window_layers") or arch.window_period
        n_layer = min(get("n_layer") or 0, MAX_LAYERS)
        values["window_layers"] = tuple((i + 1) % period != 0 for i in range(n_layer))
    return values
