"""The registry of block types: every file of ``types/`` is one, its instance is ``TYPE``.

Looking a type up imports its file; nothing here or elsewhere lists the types by hand.
"""

from functools import cache
from importlib import import_module
from pkgutil import iter_modules

from ggq.errors import FormatError, UsageError, printable
from ggq.quants import types
from ggq.quants.base import BlockType, Grid, Kernels, QuantType

__all__ = ["BlockType", "Grid", "Kernels", "QuantType", "all", "by_id", "get"]


@cache
def _registry() -> dict[str, QuantType]:
    names = (info.name for info in iter_modules(types.__path__))
    found = [import_module(f"{types.__name__}.{name}").TYPE for name in names]
    return {t.name: t for t in sorted(found, key=lambda t: t.ggml_id)}


@cache
def _by_id() -> dict[int, QuantType]:
    return {t.ggml_id: t for t in _registry().values()}


def all() -> list[QuantType]:
    """Return every block type in the order of ggml's ids."""
    return list(_registry().values())


def get(name: str) -> QuantType:
    """Return a type by its llama.cpp name in any case; raise UsageError if there is none."""
    found = _registry().get(name.upper())
    if found is None:
        raise UsageError(f"unknown type {printable(name)}; one of {', '.join(_registry())}")
    return found


def by_id(ggml_id: int) -> QuantType:
    """Return a type by its number in GGUF files; raise FormatError if ggq cannot read it."""
    found = _by_id().get(ggml_id)
    if found is None:
        raise FormatError(f"block type {ggml_id} is not supported")
    return found
