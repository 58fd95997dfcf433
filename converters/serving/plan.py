"""Which tensors of a model a serving type quantizes, on which grid, and what stays as it is.

Engines quantize the linear layers of blocks; embeddings, heads, norms and routers stay. It reads no
weights and writes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ggq.converters import grids
from ggq.converters.checkpoint.transforms import TRANSFORMS
from ggq.converters.grids import ServingType
from ggq.errors import ModelError, UsageError, option, printable
from ggq.models.table import Tensor
from ggq.quants.mixtures import KEPT_ROLES, FileType, Plan, tensor_order

__all__ = ["GROUP", "ServingPlan", "module_of", "plan_folder"]

GROUP = 128  # weights a scale where nothing says another number
Part = tuple[str, Tensor, "int | None"]  # GGUF name, table row, layer


@dataclass
class ServingPlan(Plan):
    """``chosen`` and ``group`` (0: a scale a row); ``parts``: the model's tensors.

    ``dtype``: of scales and of all that is not quantized; ``left``: HF modules that stay so.
    """

    chosen: ServingType | None = None
    group: int = 0
    dtype: str = "F16"
    parts: list[Part] = field(default_factory=list)
    left: list[str] = field(default_factory=list)


def module_of(hf_name: str) -> str:
    """Return the module whose weight has that name."""
    return hf_name.removesuffix(".weight")


def plan_folder(
    job: Any, arch: Any, hp: Any, chosen: ServingType, group: int, dtype: str
) -> ServingPlan:
    """Return the plan; UsageError, ModelError naming what cannot be.

    A matrix whose rows the groups do not divide stays as it is, as engines have it, and is among
    the fallbacks; of experts all stay then.
    """
    parts = [(n, row, layer) for n, row, layer in arch.rows(hp) if n in job.tensors]
    if left := set(job.tensors) - {n for n, _, _ in parts}:
        raise ModelError(f"tensor {printable(min(left))} is not one that {arch.name} has")
    plan = ServingPlan(FileType(chosen.name, -1, chosen.name), chosen=chosen, parts=parts)
    plan.group, plan.dtype = group if chosen.grouped else 0, dtype
    ignored = _ignored(job.options.ignore, parts, arch, hp)
    shapes = {n: job.tensors[n].shape for n, _, _ in parts}
    problems = {
        n: _problem(chosen, plan.group, shapes[n])
        for n, row, layer in parts
        if _linear(arch, row, hp, layer, shapes[n]) and n not in ignored
    }
    stacked = [n for n in problems if len(shapes[n]) == 3]
    if why := next((problems[n] for n in stacked if problems[n]), None):
        problems |= dict.fromkeys(stacked, why)  # engines take all experts or none
    for name in sorted(shapes, key=tensor_order):
        kind = dtype
        if name in problems and problems[name] is None:
            kind = grids.grid(chosen.codes, plan.group or shapes[name][-1], dtype).name
        elif name in problems:
            plan.fallbacks.append((name, chosen.name, dtype))
        plan.types.append((name, kind))
    if all(problems.values()):
        why = next(iter(problems.values()), "no matrix of its blocks is a linear layer")
        smaller = f"; {option('--group-size')} 32 may" if chosen.grouped and problems else ""
        raise UsageError(f"{chosen.name}: {arch.name} has no tensor to quantize: {why}{smaller}")
    types = dict(plan.types)
    plan.left = list(_left(parts, arch, hp, types, shapes))
    return plan


def _linear(arch: Any, row: Tensor, hp: Any, layer: int | None, shape: tuple[int, ...]) -> bool:
    """Tell whether a row is the weight of linear layers, one per expert where it has experts."""
    how = TRANSFORMS[row.transform]
    changed = how.values or how.columns or how.bind or how.transposes or row.factor
    if layer is None or layer >= hp.n_layer or changed or row.f32:
        return False
    if row.role in KEPT_ROLES or not row.gguf.endswith(".weight") or not row.hf:
        return False
    sources = len(arch.sources(row, hp, layer))
    return sources == (shape[0] if len(shape) == 3 else 1) and len(shape) in (2, 3)


def _problem(chosen: ServingType, group: int, shape: tuple[int, ...]) -> str | None:
    *_, rows, n = shape
    if group and n % group:
        return f"rows of {n} are no multiple of the group's {group}"
    return chosen.layout.problem(rows, n)


def _ignored(patterns: Sequence[str], parts: list[Part], arch: Any, hp: Any) -> set[str]:
    """Return the tensors that the user wants to stay; UsageError: a pattern that says none."""
    modules = {n: [module_of(s) for s in arch.sources(row, hp, i)] for n, row, i in parts}
    found: set[str] = set()
    for pattern in patterns:
        shown = f"{option('--ignore')} {printable(pattern)}"
        try:
            said = re.compile(pattern)
        except re.error as error:
            raise UsageError(f"{shown}: {error}") from None
        hits = {n for n, names in modules.items() if any(map(said.search, [n, *names]))}
        if not hits:
            raise UsageError(f"{shown} matches no module (such as model.layers.0.mlp.down_proj)")
        found |= hits
    return found


def _left(
    parts: list[Part],
    arch: Any,
    hp: Any,
    types: Mapping[str, str],
    shapes: Mapping[str, tuple[int, ...]],
) -> Iterator[str]:
    """Yield the modules with a matrix that is not quantized; the head even where it is tied."""
    yield "lm_head"
    for name, row, layer in parts:
        plain = not grids.is_grid(types[name]) and len(shapes[name]) > 1
        if plain and row.role not in ("token_embd", "norm", "output"):
            for source in arch.sources(row, hp, layer) if row.hf else ():
                if source.endswith(".weight"):
                    yield module_of(source)
