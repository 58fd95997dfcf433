"""Hyper-parameters of a model and the settings of its rotary embedding and attention.

It knows no file, no config and no key names: `ggq.models.base` fills these classes from both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ggq.errors import ModelError, UsageError

__all__ = [
    "MAX_LAYERS",
    "Attention",
    "Delta",
    "HParams",
    "Latent",
    "Rope",
    "Routing",
    "check",
    "check_writes",
]

MAX_LAYERS = 4096


@dataclass(frozen=True)
class Rope:
    """Rotary embedding of one layer's heads.

    ``kind``: "norm" rotates adjacent pairs, "neox" rotates element i with i + dims/2; ``dims`` is
    at most the head width. The angle of pair i at position p is p * base**(-2i/dims) / factors[i],
    divided by ``factor`` for "linear"; "yarn" mixes both angles by ``beta_fast`` and ``beta_slow``
    at ``original_context`` and multiplies the magnitude by 1 + 0.1 ln(factor) on top of
    ``attn_factor`` (arXiv 2309.00071; ggml's rope_yarn), divided by 1 + 0.1 ``log_multiplier``
    ln(factor); ``truncate`` widens the mixed pairs to whole ones. ``factors`` names a tensor of
    dims/2 divisors. ``temperature`` t multiplies queries by 1 + t ln(1 + floor(p /
    original_context)) (Llama 4's attention temperature; only where every column turns).
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
    log_multiplier: float = 0.0
    truncate: bool = True
    temperature: float = 0.0


@dataclass(frozen=True)
class Attention:
    """One layer's attention: widths in elements, ``window`` in tokens, ``sinks`` a tensor name.

    Where it is not ``causal`` every token sees all of its text, which one step evaluates whole.
    """

    n_head: int
    n_head_kv: int
    head_dim: int
    head_dim_v: int
    scale: float
    window: int | None = None
    softcap: float | None = None
    sinks: str | None = None
    causal: bool = True


@dataclass(frozen=True)
class Routing:
    """How tokens choose experts (ggq.runtime.ops.route); ``bias`` and ``scales`` name tensors."""

    n_expert: int
    n_used: int
    gating: str = "softmax"
    normalize: bool = False
    scale: float = 1.0
    bias: str | None = None
    n_group: int = 1
    n_group_used: int = 1
    scales: str | None = None


@dataclass(frozen=True)
class Delta:
    """One layer's gated delta rule (ggq.runtime.ops.delta); ``a`` and ``dt`` name tensors."""

    n_head: int
    n_key_heads: int
    head_dim: int
    head_dim_v: int
    a: str = ""
    dt: str = ""


@dataclass(frozen=True)
class Latent:
    """Multi-head latent attention (arXiv 2405.04434): what is cached is one head for all.

    Keys and values are made of ``rank`` columns, queries of ``q_rank`` ones (0: of the embedding).
    A head's query and key have ``plain`` columns without positions and ``turned`` ones with them,
    which all heads' keys share; its value has ``value`` columns.
    """

    q_rank: int
    rank: int
    plain: int
    turned: int
    value: int


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
    n_ff_shared: int = 0
    n_dense: int = 0
    recurrent_layers: tuple[bool, ...] = ()
    taps: int = 0
    n_channels: int = 0
    delta: Delta | None = None
    latent: Latent | None = None
    query_gate: bool = False
    head_dim_local: int = 0
    n_shared_kv: int = 0
    value_norm: bool = False
    n_embd_layer: int = 0
    gating: str = "softmax"
    expert_normalize: bool = False
    expert_scale: float = 1.0
    n_expert_group: int = 1
    n_expert_group_used: int = 1
    n_ctx: int = 0
    attn_scale: float | None = None
    attn_temperature: float | None = None
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
    causal: bool = True
    pooling: int = 1
    n_token_types: int = 0
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False, compare=False)

    def for_context(self, n_ctx: int) -> HParams:
        """Return these settings for running with room for ``n_ctx`` tokens (LongRoPE chooses)."""
        return replace(self, n_ctx=n_ctx)

    def heads(self, i: int) -> int:
        return _at(self.n_head, i)

    def heads_kv(self, i: int) -> int:
        return _at(self.n_head_kv, i)

    def ff(self, i: int) -> int:
        return _at(self.n_ff, i)

    def width(self, i: int) -> int:
        """The columns of a query or key head in layer ``i``."""
        return self.head_dim_local if self.head_dim_local and self.windowed(i) else self.head_dim

    def width_v(self, i: int) -> int:
        """The columns of a value head in layer ``i``."""
        return self.head_dim_local if self.head_dim_local and self.windowed(i) else self.head_dim_v

    def kv_layer(self, i: int) -> int:
        """The layer whose keys and values layer ``i`` attends to: the last own ones of its kind."""
        own = self.n_layer - self.n_shared_kv
        if i < own:
            return i
        return max((j for j in range(own) if self.windowed(j) == self.windowed(i)), default=i)

    def mixes(self, i: int) -> bool:
        """Whether layer ``i`` sends its tokens to experts."""
        return self.n_expert > 0 and i >= self.n_dense

    def recurrent(self, i: int) -> bool:
        """Whether layer ``i`` keeps a state of fixed size in place of keys and values."""
        return bool(self.recurrent_layers) and self.recurrent_layers[i]

    def state_sizes(self, i: int) -> tuple[int, int]:
        """Return the float32 values of layer ``i``'s convolution and delta states per sequence."""
        if not self.recurrent(i):
            return 0, 0
        d = self.delta
        return (self.taps - 1) * self.n_channels, d.n_head * d.head_dim * d.head_dim_v if d else 0

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
        """Return the size of dimension ``name`` of a tensor's ``shape`` in layer ``i``."""
        match name:
            case "vocab":
                return self.n_vocab
            case "embd":
                return self.n_embd
            case "q":
                return self.heads(i) * self.width(i)
            case "k":
                return self.heads_kv(i) * self.width(i)
            case "v":
                return self.heads_kv(i) * self.width_v(i)
            case "o":
                return self.heads(i) * self.width_v(i)
            case "heads":
                return self.heads(i)
            case "ff":
                return self.ff(i)
            case "head":
                return self.width(i)
            case "embd_layer":
                return self.n_embd_layer
            case "embd_layers":
                return self.n_embd_layer * self.n_layer
            case "rope_half":
                return self.rope_dim // 2
            case "expert":
                return self.n_expert
            case "ff_expert":
                return self.n_ff_expert or self.ff(i)
            case "ff_shared":
                return self.n_ff_shared
            case "channels":
                return self.n_channels
            case "token_types":
                return self.n_token_types
            case "positions":
                return self.n_ctx_train
            case "taps":
                return self.taps
            case "1":
                return 1
        if self.delta is not None and name.startswith("delta_"):
            return self._delta_dim(name.removeprefix("delta_"))
        if self.latent is not None and name.startswith("latent_"):
            return self._latent_dim(name.removeprefix("latent_"), self.heads(i))
        first, plus, rest = name.partition("+")
        if plus:
            return self.dim(first, i) + self.dim(rest, i)
        factor, _, rest = name.partition("*")
        return int(factor) * self.dim(rest, i)

    def _delta_dim(self, name: str) -> int:
        d = self.delta
        sizes = {"heads": d.n_head, "head": d.head_dim_v, "v": d.n_head * d.head_dim_v}
        return sizes[name]

    def _latent_dim(self, name: str, n_head: int) -> int:
        d = self.latent
        sizes = {"q_rank": d.q_rank, "rank": d.rank, "plain": d.plain, "value": d.value}
        sizes |= {"q": n_head * (d.plain + d.turned), "o": n_head * d.value}
        return (sizes | {"kv": d.rank + d.turned})[name]


def _at(value: int | tuple[int, ...], i: int) -> int:
    return value[i] if isinstance(value, tuple) else value


def check_writes(hp: HParams) -> None:
    """Raise UsageError for an encoder: it has no next token."""
    if not hp.causal:
        raise UsageError(
            f"{hp.arch} is an encoder: it embeds texts (model.embed, /v1/embeddings), "
            "it does not write any"
        )


def check(hp: HParams) -> None:
    """Raise ModelError where sizes cannot be those of a model; later computations rely on it."""
    sizes = {
        "vocabulary size": hp.n_vocab,
        "context length": hp.n_ctx_train,
        "block count": hp.n_layer,
    }
    sizes |= {
        "head width": hp.head_dim,
        "value head width": hp.head_dim_v,
        "norm epsilon": hp.norm_eps,
    }
    for what, value in sizes.items():
        if not value or value < 0:
            raise ModelError(f"{hp.arch}: {what} is {value}")
    if hp.n_layer > MAX_LAYERS:
        raise ModelError(f"{hp.arch}: block count {hp.n_layer} is above {MAX_LAYERS}")
    for what, per in (
        ("head counts", hp.n_head),
        ("key-value head counts", hp.n_head_kv),
        ("feed-forward", hp.n_ff),
        ("windows", hp.window_layers or 0),
        ("rotary embeddings", hp.rope_layers or 0),
        ("recurrent layers", hp.recurrent_layers or 0),
    ):
        if isinstance(per, tuple) and len(per) < hp.n_layer:
            raise ModelError(f"{hp.arch}: {len(per)} {what} for {hp.n_layer} layers")
    for i in range(hp.n_layer):
        if hp.recurrent(i):
            continue
        if hp.heads(i) < 1 or hp.heads_kv(i) < 1 or hp.heads(i) % hp.heads_kv(i):
            raise ModelError(
                f"{hp.arch}: {hp.heads(i)} heads over {hp.heads_kv(i)} key-value heads"
            )
    _check_rope(hp, hp.rope, hp.head_dim)
    _check_rope(hp, hp.rope_local or hp.rope, hp.head_dim_local or hp.head_dim)
    if hp.attn_temperature and not hp.rope.original_context:
        raise ModelError(f"{hp.arch}: an attention temperature without an original context length")
    if any(hp.recurrent_layers):
        _check_state(hp)
    if hp.latent is not None:
        _check_latent(hp, hp.latent)
    if hp.n_expert_used > hp.n_expert or (hp.n_expert and not hp.n_expert_used):
        raise ModelError(f"{hp.arch}: {hp.n_expert_used} experts used of {hp.n_expert}")


def _check_state(hp: HParams) -> None:
    """Raise ModelError where the sizes of recurrent layers do not fit each other."""
    if hp.taps < 2:
        raise ModelError(f"{hp.arch}: a convolution over {hp.taps} tokens")
    d = hp.delta
    if d is None:
        return
    sizes = (d.n_head, d.n_key_heads, d.head_dim, d.head_dim_v)
    if min(sizes) < 1 or d.n_head % d.n_key_heads:
        raise ModelError(f"{hp.arch}: {d.n_head} heads of state over {d.n_key_heads} key heads")
    if hp.n_channels != 2 * d.n_key_heads * d.head_dim + d.n_head * d.head_dim_v:
        raise ModelError(f"{hp.arch}: {hp.n_channels} channels for heads of {sizes}")


def _check_latent(hp: HParams, latent: Latent) -> None:
    """Raise ModelError where the sizes of latent attention do not fit each other."""
    sizes = (latent.rank, latent.plain, latent.turned, latent.value)
    if min(sizes) < 1 or (hp.head_dim, hp.head_dim_v) != (latent.rank + latent.turned, latent.rank):
        raise ModelError(f"{hp.arch}: cached heads of {hp.head_dim} columns for parts of {sizes}")


def _check_rope(hp: HParams, rope: Rope, width: int) -> None:
    """Raise ModelError where a rotation does not fit heads of ``width`` columns."""
    if rope.dims > width or rope.dims % 2 or rope.base <= 0 or rope.factor <= 0:
        what = f"{rope.dims} rotary dimensions, base {rope.base}, factor {rope.factor}"
        raise ModelError(f"{hp.arch}: {what} do not fit heads of {width}")
