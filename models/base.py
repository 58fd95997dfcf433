"""What an architecture is, as data: keys, tensors and hyper-parameters, read by the converter and the runtime alike.

It knows no tensor values, no back end and no file: a source is an HF config (a mapping) or an object with GGUF
``metadata``, ``get`` and ``tensors``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from ggq.errors import ModelError, printable

__all__ = ["Architecture", "Attention", "HParams", "Key", "Rope", "Tensor", "config_value"]

MAX_LAYERS = 4096
PER_LAYER = "s"  # a key type ending in this letter holds one value or one value per layer


@dataclass(frozen=True)
class Rope:
    """Rotary embedding of one layer's heads.

    ``kind``: "norm" rotates adjacent pairs, "neox" rotates element i with i + dims/2. ``dims`` <= head width. The angle of
    pair i at position p is p * base**(-2i/dims) / factors[i], divided by ``factor`` for "linear"; "yarn" mixes both angles by
    ``beta_fast`` and ``beta_slow`` at ``original_context`` and multiplies the magnitude by 1 + 0.1 ln(factor)
    on top of ``attn_factor`` (arXiv 2309.00071; ggml's rope_yarn). ``factors`` names a tensor of dims/2 divisors.
    """

    kind: str
    dims: int
    base: float = 10000.0
    scaling: str = "none"
    factor: float = 1.0
    original_context: int = 0
    attn_factor: float = 1.0
    ext_factor: float = 1.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    factors: str | None = None


@dataclass(frozen=True)
class Attention:
    """One layer's attention: widths in elements, ``scale`` of q.k, ``window`` in tokens, ``sinks`` a tensor name."""

    n_head: int
    n_head_kv: int
    head_dim: int
    head_dim_v: int
    scale: float
    window: int | None = None
    softcap: float | None = None
    sinks: str | None = None


@dataclass(frozen=True)
class Key:
    """One GGUF key: where HF's config holds it and which hyper-parameter it fills.

    ``hf``: dotted paths in config.json, the first one found wins. ``derive(config)`` gives the value where no path does
    (None: the key is left out). ``type`` is u32, f32, bool or str; u32s, f32s and bools also take one value per layer.
    ``default`` fills the hyper-parameter when a GGUF has no such key. ``to_hf(value)`` maps back at export (None: skip).
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

    ``hf``: the source tensors, in order; () for a tensor that ``transform`` generates from the config. ``shape``: names
    of dimensions, rows first (see `HParams.dim`). ``role``: the mixture's category. ``input``: rows with the same
    label (per layer) multiply the same activations. ``absorbs``: the tensor that can take over a scale of this one's input
    columns. ``f32``: stays float32 in every file type.
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

    @property
    def per_layer(self) -> bool:
        return "{i}" in self.gguf


@dataclass(frozen=True)
class HParams:
    """Hyper-parameters of one model; per-layer ones are a tuple, read through the methods."""

    arch: str
    n_vocab: int
    n_ctx_train: int
    n_embd: int
    n_layer: int
    n_ff: int | tuple[int, ...]
    n_head: int | tuple[int, ...]
    n_head_kv: int | tuple[int, ...]
    head_dim: int
    head_dim_v: int
    rope_dim: int
    norm_eps: float
    rope: Rope
    n_expert: int = 0
    n_expert_used: int = 0
    n_ff_expert: int = 0
    attn_scale: float | None = None
    window: int | None = None
    window_layers: tuple[bool, ...] = ()
    rope_layers: tuple[bool, ...] = ()
    rope_local: Rope | None = None
    attn_softcap: float | None = None
    final_softcap: float | None = None
    embedding_scale: float | None = None
    residual_scale: float | None = None
    logit_scale: float | None = None
    activation: str = "silu"
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False, compare=False)

    def heads(self, i: int) -> int:
        return _at(self.n_head, i)

    def heads_kv(self, i: int) -> int:
        return _at(self.n_head_kv, i)

    def ff(self, i: int) -> int:
        return _at(self.n_ff, i)

    def windowed(self, i: int) -> bool:
        """Whether layer ``i`` sees only the last ``window`` tokens."""
        return bool(self.window) and (self.window_layers[i] if self.window_layers else True)

    def window_at(self, i: int) -> int | None:
        return self.window if self.windowed(i) else None

    def rope_at(self, i: int) -> Rope | None:
        """The rotary embedding of layer ``i``, None where the layer has no positions."""
        if self.rope_layers and not self.rope_layers[i]:
            return None
        return self.rope_local if self.rope_local is not None and self.windowed(i) else self.rope

    def scale(self) -> float:
        """The factor on q.k: the model's own, else 1/sqrt(head_dim)."""
        return self.attn_scale if self.attn_scale else float(self.head_dim) ** -0.5

    def dim(self, name: str, i: int = 0) -> int:
        """Return the size of the dimension called ``name`` in a tensor's ``shape``, in elements, for layer ``i``."""
        match name:
            case "vocab":
                return self.n_vocab
            case "embd":
                return self.n_embd
            case "q":
                return self.heads(i) * self.head_dim
            case "k":
                return self.heads_kv(i) * self.head_dim
            case "v":
                return self.heads_kv(i) * self.head_dim_v
            case "o":
                return self.heads(i) * self.head_dim_v
            case "ff":
                return self.ff(i)
            case "head":
                return self.head_dim
            case "rope_half":
                return self.rope_dim // 2
            case "expert":
                return self.n_expert
            case "ff_expert":
                return self.n_ff_expert or self.ff(i)
        factor, _, rest = name.partition("*")
        return int(factor) * self.dim(rest, i)


class Architecture:
    """One architecture: subclasses fill the class attributes and write ``forward``; an instance has no state."""

    name: str = ""
    hf_classes: tuple[str, ...] = ()
    hf_model_type: str = ""
    rope_kind: str = "norm"
    keys: tuple[Key, ...] = ()
    tensors: tuple[Tensor, ...] = ()
    config_defaults: Mapping[str, Any] = {}  # what the HF config class fills in when config.json is silent
    hf_prefixes: tuple[str, ...] = ("", "language_model.", "model.language_model.")

    def forward(self, ops: Any, hp: HParams) -> Any:
        """Record one evaluation on ``ops`` and return the handle of the logits, (n_gathered, n_vocab) float32."""
        raise NotImplementedError(self.name)

    def finish(self, values: dict[str, Any]) -> dict[str, Any]:
        """Return ``values`` (attribute -> value) completed with what this architecture fixes in code."""
        return values

    # -- keys ------------------------------------------------------------------------------------------------------

    def metadata(self, config: Mapping[str, Any]) -> list[tuple[str, Any, str]]:
        """Return (GGUF key, value, type) of every architecture key that ``config`` gives; ModelError names a missing one."""
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

    def config(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return ``config`` flattened: text_config merged, rope settings under ``rope_parameters``, defaults filled in."""
        text = config.get("text_config")
        flat = {**config, **text} if isinstance(text, Mapping) else dict(config)
        for name, value in self.config_defaults.items():
            if flat.get(name) is None:
                flat[name] = value
        rope = flat.get("rope_parameters") or flat.get("rope_scaling")
        rope = dict(rope) if isinstance(rope, Mapping) else {}
        rope.setdefault("rope_type", rope.get("type"))
        for name in ("rope_theta", "partial_rotary_factor", "original_max_position_embeddings"):
            if rope.get(name) is None and flat.get(name) is not None:
                rope[name] = flat[name]
        flat["rope_parameters"] = {k: v for k, v in rope.items() if v is not None}
        return flat

    # -- hyper-parameters --------------------------------------------------------------------------------------------

    def hparams(self, source: Any) -> HParams:
        """Return the hyper-parameters of ``source``, an HF config (mapping) or a GGUFFile; ModelError names a bad value."""
        values = self._values_hf(source) if isinstance(source, Mapping) else self._values_gguf(source)
        for key in self.keys:
            if key.attr and values.get(key.attr) is None and key.default is not None:
                values[key.attr] = key.default
        values = self.finish(_completed(self, values))
        names = {f.name for f in fields(HParams)}
        extra = {k: v for k, v in values.items() if k not in names}
        known = {k: v for k, v in values.items() if k in names and v is not None}
        hp = HParams(arch=self.name, extra=extra, **known)
        _check(hp)
        return hp

    def _values_hf(self, config: Mapping[str, Any]) -> dict[str, Any]:
        by_name = {name: value for name, value, _ in self.metadata(config)}
        values = {k.attr: by_name.get(k.gguf.format(arch=self.name)) for k in self.keys if k.attr}
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

    # -- tensors -------------------------------------------------------------------------------------------------------

    def rows(self, hp: HParams) -> Iterator[tuple[str, Tensor, int | None]]:
        """Yield (GGUF name, table row, layer or None) of every tensor a file of this model may hold."""
        for row in self.tensors:
            if not row.per_layer:
                yield row.gguf, row, None
        for i in range(hp.n_layer):
            for row in self.tensors:
                if row.per_layer:
                    yield row.gguf.format(i=i), row, i

    def shape(self, row: Tensor, hp: HParams, layer: int | None) -> tuple[int, ...]:
        """Return the tensor's shape, rows first and row length last, as the file must have it."""
        return tuple(hp.dim(name, layer or 0) for name in row.shape)

    def sources(self, row: Tensor, hp: HParams, layer: int | None) -> list[str]:
        """Return the HF names (without prefix) that make this tensor, experts in order."""
        experts = range(hp.n_expert) if any("{e}" in p for p in row.hf) else (0,)
        return [p.format(i=layer, e=e) for e in experts for p in row.hf]

    def check(self, gguf: Any, hp: HParams) -> None:
        """Raise ModelError where a tensor of ``gguf`` is missing or has another shape than ``hp`` asks for."""
        for name, row, layer in self.rows(hp):
            found = gguf.tensors.get(name)
            if found is None:
                if not row.optional:
                    raise ModelError(f"the file has no tensor {name}")
                continue
            want = self.shape(row, hp, layer)
            if tuple(int(n) for n in found.shape) != want:
                raise ModelError(f"tensor {name} has shape {tuple(found.shape)}, the model needs {want}")


def config_value(config: Mapping[str, Any], key: Key) -> Any:
    """Return what the flattened ``config`` says for ``key``: the first path found, else ``derive``, else None."""
    for path in key.hf:
        value: Any = config
        for part in path.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        if value is not None:
            return value
    return key.derive(config) if key.derive else None


def _at(value: int | tuple[int, ...], i: int) -> int:
    return value[i] if isinstance(value, tuple) else value


def _checked(name: str, value: Any, kind: str) -> Any:
    """Return ``value`` as ``kind`` asks for it (a per-layer list as a tuple); ModelError names the key."""
    base = kind.removesuffix(PER_LAYER)
    if kind.endswith(PER_LAYER) and not isinstance(value, (str, bytes)) and hasattr(value, "__len__"):
        if len(value) > MAX_LAYERS:
            raise ModelError(f"{name} has {len(value)} values")
        return tuple(_checked(name, v.item() if hasattr(v, "item") else v, base) for v in value)
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    whole = number and float(value).is_integer() and 0 <= value < 1 << 32
    finite = number and value - value == 0
    right = {"u32": whole, "f32": finite, "bool": isinstance(value, bool), "str": isinstance(value, str)}
    if not right[base]:
        raise ModelError(f"{name} is {printable(repr(value))}, expected {base}")
    return {"u32": int, "f32": float, "bool": bool, "str": str}[base](value)


def _completed(arch: Architecture, values: dict[str, Any]) -> dict[str, Any]:
    """Return ``values`` with head sizes and the Rope that follow from the others."""
    get = values.get
    n_head, n_embd = get("n_head"), get("n_embd")
    heads = (n_head[0] if n_head else 0) if isinstance(n_head, tuple) else n_head
    if not heads or not n_embd:
        raise ModelError(f"{arch.name}: head count {heads} and embedding length {n_embd} must be at least 1")
    if not get("head_dim"):
        if n_embd % heads:
            raise ModelError(f"{arch.name}: embedding length {n_embd} is no multiple of the head count {heads}")
        values["head_dim"] = n_embd // heads
    values["n_head_kv"] = n_head if get("n_head_kv") is None else values["n_head_kv"]
    values["head_dim_v"] = get("head_dim_v") or values["head_dim"]
    values["rope_dim"] = get("rope_dim") or values["head_dim"]
    rope = {f.name: values.pop("rope_" + f.name, None) for f in fields(Rope) if f.name not in ("kind", "dims")}
    rope = {k: v for k, v in rope.items() if v is not None}
    if rope.get("factor", 1.0) in (0.0, 1.0):
        rope.pop("factor", None)
    if rope.get("scaling", "linear") == "linear":  # a factor without a type means linear, as llama.cpp reads it
        rope["scaling"] = "linear" if "factor" in rope else "none"
    rope.setdefault("original_context", get("n_ctx_train") or 0)
    values["rope"] = Rope(kind=arch.rope_kind, dims=values["rope_dim"], **rope)
    return values


def _check(hp: HParams) -> None:
    """Raise ModelError where sizes cannot be those of a model; every later size computation relies on this."""
    sizes = {"vocabulary size": hp.n_vocab, "context length": hp.n_ctx_train, "block count": hp.n_layer}
    sizes |= {"head width": hp.head_dim, "value head width": hp.head_dim_v, "norm epsilon": hp.norm_eps}
    for what, value in sizes.items():
        if not value or value < 0:
            raise ModelError(f"{hp.arch}: {what} is {value}")
    if hp.n_layer > MAX_LAYERS:
        raise ModelError(f"{hp.arch}: block count {hp.n_layer} is above {MAX_LAYERS}")
    for what, per in (("head counts", hp.n_head), ("key-value head counts", hp.n_head_kv), ("feed-forward", hp.n_ff)):
        if isinstance(per, tuple) and len(per) < hp.n_layer:
            raise ModelError(f"{hp.arch}: {len(per)} {what} for {hp.n_layer} layers")
    for i in range(hp.n_layer):
        if hp.heads(i) < 1 or hp.heads_kv(i) < 1 or hp.heads(i) % hp.heads_kv(i):
            raise ModelError(f"{hp.arch}: {hp.heads(i)} heads do not share {hp.heads_kv(i)} key-value heads evenly")
    if hp.rope.dims > hp.head_dim or hp.rope.dims % 2 or hp.rope.base <= 0 or hp.rope.factor <= 0:
        raise ModelError(f"{hp.arch}: rotary settings {hp.rope} do not fit heads of {hp.head_dim}")
    if hp.n_expert_used > hp.n_expert:
        raise ModelError(f"{hp.arch}: {hp.n_expert_used} experts used of {hp.n_expert}")
