"""Softmax attention over cached keys and values: multi-head, grouped-query, windowed, gated."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ggq.errors import ModelError
from ggq.models.layers.base import Memory, Part, Values
from ggq.models.layers.linear import linear, rms_norm, split_linear
from ggq.models.layers.rope import LOCAL_KEY, Rope, rotate
from ggq.models.table import Key, Tensor, norm, rows

__all__ = [
    "ALIBI_KEY",
    "CLAMP_KEY",
    "FUSED_TENSORS",
    "HEAD_KEYS",
    "OPTIONAL_QK_NORMS",
    "QK_NORMS",
    "TENSORS",
    "WHOLE_NORMS",
    "WIDTH_KEYS",
    "Attention",
    "listed_windows",
    "rotary_share",
    "rotation",
    "widths",
    "window_keys",
    "windowed",
]


@dataclass(frozen=True)
class Attention(Part):
    """One layer's attention: widths in elements, ``window`` in tokens, ``sinks`` a tensor name.

    The first eleven are what the operation reads. Where it is not ``causal`` every token sees its
    text, which one step evaluates whole, or half the window to both sides; where it is ``chunked``,
    texts are cut into pieces as long as the window, and a token sees its own. ``mutual``: tokens of
    one picture see each other, whatever the window. ``alibi``: the greatest
    exponent of ALiBi's slopes, 0 where it has none. ``clamp``: queries, keys and values lie between
    minus that and it. ``norms``: RMS norms of queries and keys, of every "head" or of "all" heads
    together, before the rotation or, where it ``rotates_first``, after it, or "plain" ones of every
    head, without weights; ``value_norm``: one without weight of every value head. ``gated``: each
    head's query is followed by the gate of its output, which a weight of its own makes where the
    file holds one. ``fused``: one weight makes queries, keys and values. ``owner``: the layer whose
    keys and values are read instead of own. ``sub_norm``: an RMS norm of all heads' outputs.
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
    mutual: bool = False
    alibi: float = 0.0
    chunked: bool = False
    rope: Rope | None = None
    norms: str | None = None
    norm_eps: float = 0.0
    rotates_first: bool = False
    value_norm: bool = False
    gated: bool = False
    fused: bool = False
    owner: int | None = None
    clamp: float | None = None
    sub_norm: bool = False

    @classmethod
    def of(cls, values: Values, i: int, rope: Rope | None, **own: Any) -> Attention:
        """Return layer ``i``'s attention as a model's keys say; ``own``: what they do not."""
        head_dim, head_dim_v = widths(values)
        n_head = values.at("n_head", i, "head counts")
        n_head_kv = values.at("n_head_kv", i, "key-value head counts")
        usual = {
            "head_dim": head_dim,
            "head_dim_v": head_dim_v,
            "scale": values.get("attn_scale") or float(max(head_dim, 1)) ** -0.5,
            "window": values.get("window") or None,
            "softcap": values.get("attn_softcap"),
            "alibi": values.get("alibi") or 0.0,
            "clamp": values.get("clamp") or None,
            "norm_eps": values["norm_eps"],
        }
        n_head_kv = n_head if n_head_kv is None else n_head_kv
        return cls(n_head, n_head_kv, rope=rope, layer=i, **{**usual, **own})

    @property
    def dims(self) -> dict[str, int]:
        return {
            "q": self.n_head * self.head_dim,
            "k": self.n_head_kv * self.head_dim,
            "v": self.n_head_kv * self.head_dim_v,
            "o": self.n_head * self.head_dim_v,
            "heads": self.n_head,
            "head": self.head_dim,
            **({"rope_half": self.rope.dims // 2} if self.rope and self.rope.factors else {}),
        }

    @property
    def memory(self) -> Memory:
        heads = self.n_head_kv if self.owner is None else 0
        window = self.window if self.causal else None  # a text seen both ways is held whole
        return Memory(heads, self.head_dim, self.head_dim_v, window, owner=self.owner)

    def problem(self) -> str | None:
        if self.head_dim < 1 or self.head_dim_v < 1:
            return f"heads of {self.head_dim} and {self.head_dim_v} columns"
        if self.n_head < 1 or self.n_head_kv < 1 or self.n_head % self.n_head_kv:
            return f"{self.n_head} heads over {self.n_head_kv} key-value heads"
        return self.rope.problem(self.head_dim) if self.rope else None

    def for_context(self, n_ctx: int) -> Attention:
        return replace(self, rope=self.rope.for_context(n_ctx)) if self.rope else self

    def forward(self, ops: Any, x: Any) -> Any:
        p = f"blk.{self.layer}."
        q, k, v = self._projections(ops, x)
        if self.clamp:
            q, k, v = (x if x is None else ops.clamp(x, self.clamp) for x in (q, k, v))
        own = f"{p}attn_gate"  # a weight that makes gates of the input
        gate = linear(ops, x, own) if ops.has(f"{own}.weight") else None
        if self.gated:
            gate = ops.columns(q, self.head_dim, self.head_dim, group=2 * self.head_dim)
            q = ops.columns(q, 0, self.head_dim, group=2 * self.head_dim)
        if self.value_norm and v is not None:
            v = ops.norm(v, None, self.norm_eps, kind="rms", width=self.head_dim_v)
        q = self._placed(ops, q, "q", self.n_head, self.rope)
        if k is not None:
            plain = replace(self.rope, temperature=0.0) if self.rope else None
            k = self._placed(ops, k, "k", self.n_head_kv, plain)
        y = ops.attention(q, k, v, self.layer if self.owner is None else self.owner, self)
        y = y if gate is None else ops.gate(gate, y, kind="sigmoid")
        y = rms_norm(ops, y, f"{p}attn_sub_norm", self.norm_eps) if self.sub_norm else y
        return linear(ops, y, f"{p}attn_output")

    def _projections(self, ops: Any, x: Any) -> list[Any]:
        """Return queries, keys and values; None where another layer's are read."""
        p = f"blk.{self.layer}.attn_"
        if self.fused:
            return split_linear(ops, x, f"{p}qkv", [self.dims[n] for n in "qkv"])
        q = linear(ops, x, f"{p}q")
        if self.owner is not None:
            return [q, None, None]
        k = linear(ops, x, f"{p}k")
        shared = not ops.has(f"{p}v.weight")  # keys before their norm and rotation are the values
        return [q, k, k if shared else linear(ops, x, f"{p}v")]

    def _placed(self, ops: Any, x: Any, name: str, n_head: int, rope: Rope | None) -> Any:
        """Return queries or keys normed and rotated."""
        if self.rotates_first:
            return self._normed(ops, rotate(ops, x, n_head, rope), name)
        return rotate(ops, self._normed(ops, x, name), n_head, rope)

    def _normed(self, ops: Any, x: Any, name: str) -> Any:
        if self.norms == "plain":
            return ops.norm(x, None, self.norm_eps, kind="rms", width=self.head_dim)
        norm = f"blk.{self.layer}.attn_{name}_norm"
        if not self.norms or not ops.has(f"{norm}.weight"):  # tables say which files lack it
            return x
        width = self.head_dim if self.norms == "head" else None
        return rms_norm(ops, x, norm, self.norm_eps, width)


def widths(values: Values) -> tuple[int, int]:
    """Return the columns of a model's query and value heads; ModelError where nothing says them."""
    n_head, n_embd = values.first("n_head"), values.get("n_embd")
    if not n_head or not n_embd:
        what = f"head count {n_head} and embedding length {n_embd}"
        raise ModelError(f"{values.arch}: {what} must be at least 1")
    head_dim = values.get("head_dim")
    if not head_dim:
        if n_embd % n_head:
            what = f"embedding length {n_embd} is no multiple of the head count {n_head}"
            raise ModelError(f"{values.arch}: {what}")
        head_dim = n_embd // n_head
    return head_dim, values.get("head_dim_v") or head_dim


def rotation(values: Values, kind: str) -> Rope:
    """Return the rotation of a model's heads, of all their columns unless a key says less."""
    return Rope.of(values, kind, values.get("rope_dim") or widths(values)[0])


def rotary_share(hp: Any) -> dict[str, float]:
    """Return what config.json says of how much of each head rotates."""
    rope, mixer = hp.rope, hp.find(Attention)
    assert rope is not None and mixer is not None
    return {"partial_rotary_factor": rope.dims / mixer.head_dim}


def windowed(values: Values, i: int, period: int) -> bool:
    """Tell whether layer ``i`` has the window: as the keys say, else all but every n-th one."""
    listed = values.get("window_layers")
    if not values.get("window"):
        return False
    if isinstance(listed, tuple):
        return bool(values.at("window_layers", i, "windows"))
    return (i + 1) % (listed or period) != 0


HEAD_KEYS = (
    Key("{arch}.attention.head_count", ("num_attention_heads",), "n_head", "u32s", required=True),
    Key(
        "{arch}.attention.head_count_kv",
        ("num_key_value_heads",),
        "n_head_kv",
        "u32s",
        derive=lambda c: c.get("num_attention_heads"),
    ),
)
ALIBI_KEY = Key("{arch}.attention.max_alibi_bias", (), "alibi", "f32")
CLAMP_KEY = Key("{arch}.attention.clamp_kqv", ("clip_qkv",), "clamp", "f32")
WIDTH_KEYS = (
    Key("{arch}.attention.key_length", ("head_dim",), "head_dim"),
    Key("{arch}.attention.value_length", ("head_dim",), "head_dim_v"),
)


def listed_windows(period: int) -> Callable[[Mapping[str, Any]], list[bool] | None]:
    """Return a derive function: which layers have the window, all but every ``period``-th usually.

    For architectures whose files list them in any case.
    """

    def listed(config: Mapping[str, Any]) -> list[bool] | None:
        if not config.get("sliding_window"):
            return None
        kinds = config.get("layer_types")
        if isinstance(kinds, (list, tuple)):
            return [kind == "sliding_attention" for kind in kinds]
        return [(i + 1) % period != 0 for i in range(config["num_hidden_layers"])]

    return listed


def window_keys(
    period: int, layers: Callable[[Mapping[str, Any]], Any] | None = None
) -> tuple[Key, ...]:
    """Return the keys of models in which all layers but every ``period``-th have the window."""

    def pattern(config: Mapping[str, Any]) -> list[bool] | int | None:
        """Return which layers have it, None where the architecture's own period says it."""
        kinds = config.get("layer_types")
        if isinstance(kinds, (list, tuple)):
            sliding = [kind == "sliding_attention" for kind in kinds]
            same = sliding == [(i + 1) % period != 0 for i in range(len(kinds))]
            return None if same else sliding
        given: int | None = config.get("sliding_window_pattern")
        return None if given == period else given

    name = "{arch}.attention.sliding_window_pattern"
    return (
        Key("{arch}.attention.sliding_window", ("sliding_window",), "window"),
        Key(name, (), "window_layers", "bools", derive=layers or pattern),
        LOCAL_KEY,
    )


def _tensors() -> tuple[Tensor, ...]:
    ahead: dict[str, Any] = {"input": "attn_in", "absorbs": "attn_norm", "part": Attention}
    after: dict[str, Any] = {"input": "attn_out", "absorbs": "attn_v", "part": Attention}
    return (
        *rows("attn_q", "self_attn.q_proj", ("q", "embd"), **ahead),
        *rows("attn_k", "self_attn.k_proj", ("k", "embd"), **ahead),
        *rows("attn_v", "self_attn.v_proj", ("v", "embd"), **ahead),
        *rows("attn_output", "self_attn.o_proj", ("embd", "o"), **after),
    )


TENSORS = _tensors()
# One weight makes queries, keys and values, which then take over no scale.
FUSED_TENSORS = (
    *rows(
        "attn_qkv",
        "self_attn.qkv_proj",
        ("q+k+v", "embd"),
        input="attn_in",
        absorbs="attn_norm",
        part=Attention,
    ),
    *rows("attn_output", "self_attn.o_proj", ("embd", "o"), input="attn_out", part=Attention),
)
QK_NORMS = (
    *norm("attn_q_norm", "self_attn.q_norm", "head", part=Attention),
    *norm("attn_k_norm", "self_attn.k_norm", "head", part=Attention),
)
OPTIONAL_QK_NORMS = tuple(replace(row, optional=True) for row in QK_NORMS)
WHOLE_NORMS = (
    *norm("attn_q_norm", "self_attn.q_norm", "q", part=Attention),
    *norm("attn_k_norm", "self_attn.k_norm", "k", part=Attention),
)
