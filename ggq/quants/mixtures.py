"""Which block type each tensor of a file gets: llama.cpp's mixtures as a table, and its planner.

It knows names, shapes and counts only: no weights, no encoder, no file. Source of every rule:
llama.cpp's src/llama-quant.cpp (llama_tensor_get_type); tested against upstream's own snapshots.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from ggq import quants
from ggq.errors import UsageError, known_names, printable
from ggq.quants.file_types import ALIASES, FALCON, FILE_TYPES, FileType

__all__ = [
    "FILE_TYPES",
    "FileType",
    "MixtureOptions",
    "Model",
    "Plan",
    "PlanTensor",
    "file_type",
    "plan",
    "plan_types",
    "role_of",
    "tensor_order",
    "tensor_type",
]

UNQUANTIZED = ("F32", "F16", "BF16")


# All of their rules stand in the table: no exception for eight experts or 70B.
TWO_BITS = ("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ2_M")
EIGHT_EXPERTS = {"v": "Q8_0", "attn_k": "Q8_0"}
# Their attn_output becomes Q5_K where there are eight experts.
EIGHT_EXPERTS_OUTPUT = (
    *("Q2_K", "Q3_K_S", "Q3_K_M", "Q4_K_S", "Q4_K_M", "IQ4_NL", "IQ4_XS"),
    *("IQ3_XXS", "IQ3_XS", "IQ3_S", "IQ3_M"),
)
LAYERS_70B = {"llama": 80, "qwen2": 80, "deci": 80, "olmo": 80, "jais2": 68}
NATIVE = "MXFP4"  # trained in these blocks: any other type of their size loses, F32 is exact

# Tensors with these roles keep their type: small, or too sensitive.
KEPT_ROLES = ("norm", "router", "conv", "bias", "kept")
V_ROLES = ("attn_v", "attn_qkv", "attn_kv_b")  # they follow one rule, called v, and count as one
# What the names of such tensors hold, in architectures whose tables we do not have.
KEPT = (
    *("_norm.weight", "ffn_gate_inp.weight", "ffn_gate_tid2eid.weight", "altup", "laurel"),
    *("per_layer_model_proj", "ssm_conv1d", "shortconv.conv.weight", "attn_rel_b.weight"),
    *("indexer.k_proj.weight", "indexer.q_proj.weight", ".position_embd", "sam.pos_embd"),
    *("sam.neck.", "sam.net_", ".rel_pos", ".patch_embd", ".patch_merger"),
    *("a.rvq.codebook", "mm.a.code_embd", "time_mix_first.weight", "time_mix_lerp_fused.weight"),
    *(f"time_mix_{n}.weight" for n in ("w0", "w1", "w2", "v0", "v1", "v2", "a0", "a1", "a2")),
    *(f"time_mix_{n}.weight" for n in ("g1", "g2", "decay_w1", "decay_w2")),
)
KEPT_NAMES = ("position_embd.weight", "token_types.weight")
EMBEDDINGS = ("token_embd.weight", "per_layer_token_embd.weight")
LAYERED = ("ffn_down", "ffn_gate", "ffn_up")  # their rules go by layer
NAMED_ROLES = (  # what a name holds -> role; the first hit wins
    *((f"{role}.weight", role) for role in (*V_ROLES, "attn_k", "attn_q", "attn_output")),
    *((role, role) for role in LAYERED[::-1]),
)


class Model(Protocol):
    """What the rules ask of a model; ``ggq.models.hparams.HParams`` has it."""

    @property
    def arch(self) -> str: ...
    @property
    def n_block(self) -> int: ...  # layers and heads behind them
    @property
    def n_head(self) -> int: ...
    @property
    def n_head_kv(self) -> int: ...
    @property
    def n_expert(self) -> int: ...


class PlanTensor(NamedTuple):
    """A tensor to plan for: GGUF name, shape (row length last), type name in the source.

    ``role``: what its architecture's table says; `role_of` tells it where there is no table.
    """

    name: str
    shape: tuple[int, ...]
    source_type: str
    role: str | None = None

    @property
    def category(self) -> str:
        """Return the name of the rules that the tensor follows."""
        role = self.role or role_of(self.name)
        return "v" if role in V_ROLES else role


@dataclass(frozen=True)
class MixtureOptions:
    """What the user overrides; ``tensor_types`` are (regex, type) pairs, searched in order."""

    pure: bool = False
    tensor_types: tuple[tuple[str, str], ...] = ()
    output_tensor_type: str | None = None
    token_embedding_type: str | None = None
    imatrix: bool = False


@dataclass
class Plan:
    """Types in file order, the shape fallbacks; ``asked``: tensors whose type the user named."""

    file_type: FileType
    types: list[tuple[str, str]] = field(default_factory=list)
    fallbacks: list[tuple[str, str, str]] = field(default_factory=list)  # name, wanted, used
    asked: set[str] = field(default_factory=set)

    @property
    def need_imatrix(self) -> list[str]:
        """Return the tensors that are garbage in the types planned for them without importance."""
        needing = {kind.name for kind in quants.all() if kind.wants_importance}
        if self.file_type.name == "Q2_K_S":
            needing.add("Q2_K")
        spared = (*EMBEDDINGS, "output.weight")
        return [n for n, kind in self.types if kind in needing and n not in spared]


def file_type(name: str, others: Iterable[str] = ()) -> FileType:
    """Return the file type called ``name`` in any case (``Q4_K`` is ``Q4_K_M``); UsageError.

    ``others``: what else the name could have been meant for, told where it is unknown.
    """
    key = str(name).strip().upper()
    found = FILE_TYPES.get(ALIASES.get(key, key))
    if found is None:
        names = [*FILE_TYPES, *others]
        raise UsageError(f"unknown file type {printable(name)}: {known_names(key, names)}")
    return found


def tensor_type(name: str) -> str:
    """Return the block type called ``name`` in any case, as its proper name; UsageError."""
    key = str(name).strip().upper()
    names = [kind.name for kind in quants.all()]
    if key not in names:
        raise UsageError(f"unknown tensor type {printable(name)}: {known_names(key, names)}")
    return key


def tensor_order(name: str) -> tuple[int, bytes]:
    """Return the key that sorts tensors as llama.cpp visits and writes them: block, then name."""
    match = re.match(r"blk\.(\d+)\.", name)
    return (int(match[1]) if match else -1), name.encode()


def plan_types(
    tensors: Iterable[PlanTensor],
    model: Model,
    wanted: str,
    options: MixtureOptions = MixtureOptions(),
) -> list[tuple[str, str]]:
    """Return (name, type name) of every tensor in file order; see `plan`."""
    return plan(tensors, model, wanted, options).types


def plan(
    tensors: Iterable[PlanTensor],
    model: Model,
    wanted: str,
    options: MixtureOptions = MixtureOptions(),
) -> Plan:
    """Return the types that llama.cpp's mixture ``wanted`` gives, with the user's overrides.

    UsageError: unknown type, a regular expression that does not compile or matches no name.
    """
    ordered = sorted(tensors, key=lambda t: tensor_order(t.name))
    return _Planner(ordered, model, file_type(wanted), options).run()


def more_bits(i: int, n: int) -> bool:
    """Tell whether layer ``i`` of ``n`` is in the first or last eighth, or a third one between."""
    return i < n // 8 or i >= 7 * n // 8 or (i - n // 8) % 3 == 2


class _Planner:
    """One pass over the tensors in file order; the counters are the rules' layer indices."""

    def __init__(
        self, tensors: Sequence[PlanTensor], model: Model, target: FileType, options: MixtureOptions
    ) -> None:
        self.tensors, self.model, self.target, self.options = tensors, model, target, options
        names = {t.name for t in tensors}
        self.tied = "output.weight" not in names
        self.n_v = sum(t.category == "v" for t in tensors)
        self.seen: Counter[str] = Counter()  # tensors met so far, by category
        heads, heads_kv = model.n_head, model.n_head_kv
        self.gqa = heads // heads_kv if heads_kv else 0
        self.is_70b = LAYERS_70B.get(model.arch) == model.n_block and (
            model.arch != "llama" or heads != heads_kv
        )
        falcon = FALCON.get(target.name, {}) if model.arch == "falcon" else {}
        self.rules = {**target.rules, **falcon}
        self.patterns = [(_regex(p, names), tensor_type(t)) for p, t in options.tensor_types]
        self.output_type = options.output_tensor_type and tensor_type(options.output_tensor_type)
        self.embedding_type = options.token_embedding_type and tensor_type(
            options.token_embedding_type
        )
        self.result = Plan(target)

    def run(self) -> Plan:
        for tensor in self.tensors:
            chosen = self._type(tensor) if _quantizable(tensor) else tensor.source_type
            self.result.types.append((tensor.name, chosen))
        return self.result

    def _type(self, tensor: PlanTensor) -> str:
        category = tensor.category
        asked = self._asked(tensor, category)
        if asked is not None:
            self.result.asked.add(tensor.name)
            return asked
        if tensor.source_type == NATIVE and not self._smaller_than_native():
            return NATIVE
        if self.target.base in UNQUANTIZED:
            return self.target.base
        if self.options.pure:
            return self._fitting(tensor, self.target.base)
        return self._fitting(tensor, self._mixed(tensor, category))

    def _smaller_than_native(self) -> bool:
        """Tell whether files of this type are asked for to be smaller, or to be exact."""
        base = quants.get(self.target.base)
        return base.name == "F32" or base.bits_per_weight < quants.get(NATIVE).bits_per_weight

    def _asked(self, tensor: PlanTensor, category: str) -> str | None:
        """Return the type that the user named for a tensor, None where the mixture chooses."""
        manual = next((t for p, t in self.patterns if p.search(tensor.name)), None)
        named = manual is not None and tensor.name == EMBEDDINGS[1]
        if self.embedding_type and category == "token_embd" and not named:
            return self.embedding_type
        if self.output_type and category == "output":
            return self.output_type
        if manual is not None and self.target.base not in UNQUANTIZED:
            return self._fitting(tensor, manual)
        return None

    def _mixed(self, tensor: PlanTensor, category: str) -> str:
        """Return what the mixture gives; counts v-class and ffn_down tensors as it goes."""
        if category == "output" or (self.tied and category == "token_embd"):
            if self.output_type:
                self.result.asked.add(tensor.name)
            return self.output_type or self._output(tensor)
        if self.target.name == "MXFP4_MOE":
            return "MXFP4" if len(tensor.shape) > 2 and tensor.shape[-3] > 1 else "Q8_0"
        i, self.seen[category] = self.seen[category], self.seen[category] + 1
        if self.target.name in TWO_BITS:
            return self._ruled(category, i, self.model.n_block)
        if category == "v":
            chosen = self._ruled(category, i, self.n_v)
            if self.is_70b and chosen in ("Q3_K", "Q4_K"):
                chosen = "Q5_K"
            return EIGHT_EXPERTS["v"] if self.model.n_expert == 8 else chosen
        if category in LAYERED:
            layer = tensor_order(tensor.name)[0] if self.model.n_expert > 1 else i
            return self._ruled(category, layer, self.model.n_block)
        if self.model.n_expert == 8 and category in EIGHT_EXPERTS:
            return EIGHT_EXPERTS[category]
        if category == "attn_output" and self.model.n_expert == 8 and self.model.arch != "falcon":
            return "Q5_K" if self.target.name in EIGHT_EXPERTS_OUTPUT else self.target.base
        return self._ruled(category, 0, 0)

    def _output(self, tensor: PlanTensor) -> str:
        base = self.target.base
        odd = tensor.shape[-1] % _block(base) != 0
        if odd or self.model.arch == "falcon" or base in ("Q8_0", "MXFP4"):
            return "Q8_0"
        return next((t for _, t in self.rules.get("output", ())), "Q6_K")

    def _ruled(self, category: str, i: int, n: int) -> str:
        for condition, chosen in self.rules.get(category, ()):
            if self._holds(condition, i, n):
                return chosen
        return self.target.base

    def _holds(self, condition: str, i: int, n: int) -> bool:
        plain, experts = not self.options.imatrix, self.model.n_expert
        known = {
            "always": True,
            "gqa_4": self.gqa >= 4,
            "four_experts": experts >= 4,
            "eight_experts": experts == 8,
            "plain": plain,
            "more_bits": more_bits(i, n),
            "eight_experts_more_bits": experts == 8 and more_bits(i, n),
            "middle": n // 8 <= i < 7 * n // 8,
            "imatrix_first_8th": not plain and i < n // 8,
            "plain_first_8th": plain and i < n // 8,
        }
        if condition in known:
            return known[condition]
        kind, _, count = condition.partition("_")
        assert kind == "first", condition
        return i < (n // int(count[:-2]) if count.endswith("th") else int(count))

    def _fitting(self, tensor: PlanTensor, chosen: str) -> str:
        """Return ``chosen``, or the nearest type whose blocks fill the rows evenly, and note it."""
        width = tensor.shape[-1]
        if width % _block(chosen) == 0:
            return chosen
        used = quants.get(chosen).fallback or chosen
        used = used if width % _block(used) == 0 else "F16"
        self.result.fallbacks.append((tensor.name, chosen, used))
        return used


def _block(name: str) -> int:
    return quants.get(name).block_size


def role_of(name: str) -> str:
    """Return the role that llama.cpp reads out of a tensor's name, whatever its architecture."""
    kept = name in KEPT_NAMES or any(part in name for part in KEPT)
    if kept or not name.endswith("weight"):
        return "kept"
    if name == "output.weight":
        return "output"
    if name in EMBEDDINGS:
        return "token_embd"
    return next((role for part, role in NAMED_ROLES if part in name), "other")


def _quantizable(tensor: PlanTensor) -> bool:
    """Tell whether the tensor takes part: two real dimensions and no role that is kept."""
    leading = next((i for i, n in enumerate(tensor.shape) if n != 1), len(tensor.shape))
    return len(tensor.shape) - leading >= 2 and tensor.category not in KEPT_ROLES


def _regex(pattern: str, names: Iterable[str]) -> re.Pattern[str]:
    """Compile a user's pattern; one that no tensor matches is a mistake."""
    shown = f"tensor type pattern '{printable(pattern)}'"
    try:
        found = re.compile(pattern)
    except re.error as error:
        raise UsageError(f"{shown}: {error}") from None
    if not any(map(found.search, names)):
        raise UsageError(f"{shown} matches no tensor (ggq info lists the names of a file)")
    return found
