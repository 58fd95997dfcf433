"""How models write thoughts and tool calls: every file here that declares ``FORMAT`` is one way."""

from __future__ import annotations

from collections.abc import Collection
from functools import cache
from importlib import import_module
from pkgutil import iter_modules

from ggq.runtime.formats.base import Format

__all__ = ["all_formats", "choose_format"]


@cache
def all_formats() -> tuple[Format, ...]:
    """Return every format, the highest rank first."""
    modules = (import_module(f"{__name__}.{info.name}") for info in iter_modules(__path__))
    found = [module.FORMAT for module in modules if hasattr(module, "FORMAT")]
    return tuple(sorted(found, key=lambda form: (-form.rank, form.name)))


def choose_format(template: str, tokens: Collection[str]) -> Format:
    """Return the format of a model, by its chat template's source and its token texts."""
    form = next(form for form in all_formats() if form.recognizes(template, tokens))
    return form.fitted(template, tokens)
