"""The grids and layouts of serving engines: what ``--type W4A16`` writes, apart from ggml's types.

Two registries that scan their folders: ``kinds/`` (what values a weight can take: a file each, its
class is ``GRID``) and ``layouts/`` (how codes and scales lie in a checkpoint: a file each, with
its ``TYPES``). `kind` looks a planned type up, whether it is ggml's or one of these.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from pkgutil import iter_modules

from ggq import quants
from ggq.converters.grids import kinds, layouts
from ggq.converters.grids.base import GROUP_SIZES, Grid, Inputs, Layout, ServingType
from ggq.errors import UsageError, printable
from ggq.quants.base import QuantType

__all__ = [
    "GROUP_SIZES",
    "Grid",
    "Inputs",
    "Layout",
    "ServingType",
    "find",
    "grid",
    "is_grid",
    "kind",
    "kinds_of_codes",
    "types",
]


@cache
def types() -> dict[str, ServingType]:
    """Return every type that a folder for serving engines can have, by name."""
    modules = (
        import_module(f"{layouts.__name__}.{m.name}") for m in iter_modules(layouts.__path__)
    )
    found = [one for module in modules for one in module.TYPES]
    return {one.name: one for one in sorted(found, key=lambda one: (-one.bits, one.name))}


def find(name: str | None) -> ServingType | None:
    """Return the type of that name in any case; None: it is none of these."""
    return types().get(str(name).strip().upper())


@cache
def kinds_of_codes() -> dict[str, type[Grid]]:
    """Return the kind of grid that has such codes, by their names."""
    modules = (import_module(f"{kinds.__name__}.{m.name}") for m in iter_modules(kinds.__path__))
    return {name: m.GRID for m in modules for name in m.GRID.CODES}


@cache
def grid(codes: str, group: int, scales: str) -> Grid:
    """Return the grid of such codes ("INT4"), ``group`` weights a scale of F32, F16 or BF16."""
    return kinds_of_codes()[codes](codes, group, scales)


def is_grid(name: str) -> bool:
    """Tell whether a planned type is one of these grids."""
    return name.partition("-")[0] in kinds_of_codes()


@cache
def kind(name: str) -> QuantType:
    """Return what a plan calls ``name``: a block type of ggml or a grid; UsageError."""
    codes, _, rest = name.partition("-")
    if codes not in kinds_of_codes():
        return quants.get(name)
    group, _, scales = rest.partition("-")
    if scales not in ("F32", "F16", "BF16") or not group[1:].isdigit():
        raise UsageError(f"unknown grid {printable(name)}")
    return grid(codes, int(group[1:]), scales)
