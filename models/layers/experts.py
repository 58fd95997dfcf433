"""Mixtures of experts: a router chooses feed-forward networks per token and weighs them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from ggq.models.layers import feed_forward
from ggq.models.layers.base import Part, Values
from ggq.models.layers.linear import linear, optional
from ggq.models.table import BLOCK, LAYER, Key, Tensor, rows

__all__ = [
    "DENSE_KEY",
    "EXPERT_TENSORS",
    "GATING",
    "KEYS",
    "MIXTRAL_TENSORS",
    "SHARED_TENSORS",
    "WEIGHT_KEYS",
    "Experts",
    "Routing",
    "expert_rows",
    "gating_key",
    "misfit_groups",
    "router_bias",
    "shared_rows",
]

GATING = {"softmax": 1, "sigmoid": 2}  # what GGUF calls them


@dataclass(frozen=True)
class Routing:
    """How tokens choose experts (ggq.runtime.ops.route); ``bias`` and ``scales`` name tensors.

    A token goes to ``n_used`` experts, found in the ``n_group_used`` best of ``n_group`` groups.
    """

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
class Experts(Part):
    """One layer's experts of ``n_ff`` columns each.

    ``fused``: one stack holds gate and up. ``n_ff_shared``: the columns of an expert that sees
    every token, 0 for none; ``shared_gate``: a sigmoid of the token weighs it. Experts that are not
    ``gated`` are down(act(up(x))). ``weighs_input``: what they see is weighed, not what they make.
    Where the file holds the weights for it they see the token brought down to ``n_in`` columns, and
    their sum is brought up again, or it gets a bias.
    """

    routing: Routing
    n_ff: int
    activation: str = "silu"
    fused: bool = False
    n_ff_shared: int = 0
    shared_gate: bool = False
    gated: bool = True
    weighs_input: bool = False
    n_in: int = 0

    @classmethod
    def of(cls, values: Values, i: int, **own: Any) -> Experts:
        """Return layer ``i``'s experts as a model's keys say; ``own``: what they do not."""
        usual = {
            "gating": values.get("gating") or "softmax",
            "normalize": values.get("expert_normalize") or False,
            "scale": 1.0 if values.get("expert_scale") is None else values["expert_scale"],
            "n_group": values.get("n_expert_group") or 1,
            "n_group_used": values.get("n_expert_group_used") or 1,
            "bias": f"blk.{i}.exp_probs_b.bias",
        }
        counts = values.get("n_expert") or 0, values.get("n_expert_used") or 0
        routed = {f.name: own.pop(f.name) for f in fields(Routing) if f.name in own}
        routing = Routing(*counts, **{**usual, **routed})
        n_ff = values.get("n_ff_expert") or feed_forward.width(values, i)
        shared = values.get("n_ff_shared") or 0
        return cls(routing, n_ff, n_ff_shared=shared, layer=i, **own)

    @property
    def dims(self) -> dict[str, int]:
        return {
            "expert": self.routing.n_expert,
            "ff_expert": self.n_ff,
            "ff_shared": self.n_ff_shared,
            "expert_in": self.n_in,
        }

    @property
    def experts(self) -> tuple[int, int]:
        return self.routing.n_expert, self.routing.n_used

    def problem(self) -> str | None:
        n, used = self.experts
        return f"{used} experts used of {n}" if used > n or not used else None

    def forward(self, ops: Any, x: Any, routed_by: Any = None) -> Any:
        """Record what the experts make of ``x``; the router sees ``routed_by`` or else ``x``."""
        p = f"blk.{self.layer}.ffn_"
        routing = replace(self.routing, bias=self.routing.bias and optional(ops, self.routing.bias))
        routed = linear(ops, x if routed_by is None else routed_by, f"{p}gate_inp")
        routed = ops.route(routed, routing)
        latent = ops.has(f"{p}latent_down.weight")
        y = linear(ops, x, f"{p}latent_down") if latent else x
        y = self._inner(ops, ops.spread(y, routed) if self.weighs_input else y, routed)
        y = self._stack(ops, y, routed, "down")
        y = ops.combine(y, routed, weighted=not self.weighs_input)
        y = linear(ops, y, f"{p}latent_up") if latent else y
        y = ops.shift(y, f"{p}down_sum.bias") if ops.has(f"{p}down_sum.bias") else y
        return ops.add(y, self._shared(ops, x)) if self.n_ff_shared else y

    def _inner(self, ops: Any, x: Any, routed: Any) -> Any:
        """Return what the experts' last weights see."""
        if not self.gated:
            return ops.activate(self._stack(ops, x, routed, "up"), self.activation)
        if self.fused:
            ends = (0, self.n_ff), (self.n_ff, 2 * self.n_ff)
            gate, up = (self._stack(ops, x, routed, "gate_up", rows=part) for part in ends)
        else:
            gate = self._stack(ops, x, routed, "gate")
            up = self._stack(ops, x, routed, "up")
        return feed_forward.gated(ops, gate, up, self.activation)

    def _stack(self, ops: Any, x: Any, routed: Any, name: str, **part: Any) -> Any:
        stack = f"blk.{self.layer}.ffn_{name}_exps"
        return ops.experts(
            x, routed, f"{stack}.weight", bias=optional(ops, f"{stack}.bias"), **part
        )

    def _shared(self, ops: Any, x: Any) -> Any:
        p = f"blk.{self.layer}.ffn_"
        y = linear(ops, x, f"{p}up_shexp")
        if self.gated:
            y = ops.gate(linear(ops, x, f"{p}gate_shexp"), y, kind=self.activation)
        else:
            y = ops.activate(y, self.activation)
        y = linear(ops, y, f"{p}down_shexp")
        if not self.shared_gate:
            return y
        return ops.gate(linear(ops, x, f"{p}gate_inp_shexp"), y, kind="sigmoid")


KEYS = (
    Key(
        "{arch}.expert_count",
        ("num_local_experts", "num_experts", "n_routed_experts"),
        "n_expert",
        default=0,
    ),
    Key("{arch}.expert_used_count", ("num_experts_per_tok",), "n_expert_used", default=0),
    Key("{arch}.expert_feed_forward_length", ("moe_intermediate_size",), "n_ff_expert"),
)
# What files of DeepSeek's kind of mixtures say beside `KEYS`.
WEIGHT_KEYS = (
    Key("{arch}.expert_shared_count", ("n_shared_experts",), "n_shared", default=0),
    Key("{arch}.expert_weights_scale", ("routed_scaling_factor",), "expert_scale", "f32"),
    Key("{arch}.expert_weights_norm", ("norm_topk_prob",), "expert_normalize", "bool"),
)
DENSE_KEY = Key(
    "{arch}.leading_dense_block_count", ("first_k_dense_replace",), "n_dense", default=0
)


def gating_key(kind: str) -> Key:
    """Return the key that says the one gating which an architecture has."""
    return Key("{arch}.expert_gating_func", (), None, derive=lambda config: GATING[kind])


def misfit_groups(
    config: Mapping[str, Any], n_expert: int | None
) -> Iterator[tuple[str, Any, str]]:
    """Yield groups that experts do not fall into, or that do not hold as many as a token uses."""
    groups, used = config.get("n_group") or 1, config.get("topk_group") or 1
    wanted = config.get("num_experts_per_tok") or 0
    if n_expert and (n_expert % groups or used > groups):
        yield "n_group", groups, f"{n_expert} experts do not fall into as many, {used} of them used"
    elif n_expert and wanted > used * (n_expert // groups):
        yield "num_experts_per_tok", wanted, f"{used} groups of experts do not have as many"


def expert_rows(gate: str, up: str, down: str, router: str) -> tuple[Tensor, ...]:
    """Return the rows of a layer's experts, whose HF names are given without the layer."""
    ahead: dict[str, Any] = {"input": "ffn_in", "absorbs": "ffn_norm"}
    after: dict[str, Any] = {"input": "experts_act", "absorbs": "ffn_up_exps"}

    def stack(
        name: str, hf: str, shape: tuple[str, str], more: dict[str, Any]
    ) -> tuple[Tensor, ...]:
        full = ("expert", *shape)
        return rows(f"{name}_exps", hf, full, bias=False, role=name, part=Experts, **more)

    return (
        *rows(
            "ffn_gate_inp",
            router,
            ("expert", "embd"),
            bias=False,
            role="router",
            part=Experts,
            **ahead,
        ),
        *stack("ffn_gate", gate, ("ff_expert", "embd"), ahead),
        *stack("ffn_up", up, ("ff_expert", "embd"), ahead),
        *stack("ffn_down", down, ("embd", "ff_expert"), after),
    )


def router_bias(hf: str) -> Tensor:
    """Return the row of what is added to scores when experts are chosen."""
    name, source = f"{BLOCK}exp_probs_b.bias", f"{LAYER}{hf}"
    row = Tensor(name, (source,), ("expert",), role="bias", optional=True, f32=True)
    return replace(row, part=Experts)


def shared_rows(hf: str) -> tuple[Tensor, ...]:
    """Return the rows of the expert that sees every token, of HF's name ``hf``."""
    plain: dict[str, Any] = {"part": Experts, "bias": False}
    ahead = {**plain, "input": "ffn_in", "absorbs": "ffn_norm"}
    after = {**plain, "input": "shared_act", "absorbs": "ffn_up_shexp"}
    sizes, down = ("ff_shared", "embd"), ("embd", "ff_shared")
    return (
        *rows("ffn_gate_shexp", f"{hf}.gate_proj", sizes, role="ffn_gate", **ahead),
        *rows("ffn_up_shexp", f"{hf}.up_proj", sizes, role="ffn_up", **ahead),
        *rows("ffn_down_shexp", f"{hf}.down_proj", down, role="ffn_down", **after),
    )


MOE = "block_sparse_moe."
MIXTRAL_TENSORS = expert_rows(
    f"{MOE}experts.{{e}}.w1", f"{MOE}experts.{{e}}.w3", f"{MOE}experts.{{e}}.w2", f"{MOE}gate"
)
EXPERTS = "mlp.experts.{e}."
STACKS = {  # what newer checkpoints have in the place of a matrix per expert
    f"{BLOCK}ffn_gate_exps.weight": (f"{LAYER}mlp.experts.gate_up_proj", "first_half"),
    f"{BLOCK}ffn_up_exps.weight": (f"{LAYER}mlp.experts.gate_up_proj", "second_half"),
    f"{BLOCK}ffn_down_exps.weight": (f"{LAYER}mlp.experts.down_proj", "stack"),
}
EXPERT_TENSORS = tuple(
    replace(row, fused=STACKS.get(row.gguf))
    for row in expert_rows(
        f"{EXPERTS}gate_proj", f"{EXPERTS}up_proj", f"{EXPERTS}down_proj", "mlp.gate"
    )
)
SHARED_TENSORS = (
    *rows(
        "ffn_gate_inp_shexp",
        "mlp.shared_expert_gate",
        ("1", "embd"),
        bias=False,
        role="router",
        input="ffn_in",
        absorbs="ffn_norm",
        part=Experts,
    ),
    *shared_rows("mlp.shared_expert"),
)
