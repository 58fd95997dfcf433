"""Architectures: one file each, read by converter and runtime alike; free of torch and of files.

A module of this folder with a module-level ``ARCHITECTURE`` is registered by being there.
"""

if not __name__.startswith("ggq."):
    raise ImportError(
        "import this package as ggq.models: a second copy would have empty registries"
    )

import difflib
import functools
import importlib
import pkgutil
import re
from collections.abc import Mapping
from typing import Any

from ggq.errors import ModelError, printable
from ggq.models.base import Architecture
from ggq.models.refused import reason
from ggq.models.unsupported import missing_piece
from ggq.models.wrappers import WRAPPERS, text_class

SIMILAR = 0.8  # of 1: a slip, or another of the same family
__all__ = ["all_architectures", "class_names", "for_hf", "get"]


@functools.cache
def _registry() -> dict[str, Architecture]:
    found = {}
    for module in sorted(m.name for m in pkgutil.iter_modules(__path__)):
        arch = getattr(importlib.import_module(f"{__name__}.{module}"), "ARCHITECTURE", None)
        if arch is not None:
            assert arch.name not in found, arch.name
            found[arch.name] = arch
    return found


@functools.cache
def _of_own_file(name: str) -> Architecture | None:
    """Return the architecture from the file of its name, where there is one: no other is read."""
    module = re.sub(r"\W", "_", name)
    if not any(found.name == module for found in pkgutil.iter_modules(__path__)):
        return None
    arch = getattr(importlib.import_module(f"{__name__}.{module}"), "ARCHITECTURE", None)
    return arch if arch is not None and arch.name == name else None


def all_architectures() -> list[Architecture]:
    """Return every architecture, by name."""
    return list(_registry().values())


def get(name: str, metadata: Mapping[str, Any] | None = None) -> Architecture:
    """Return the architecture that GGUF files call ``name``.

    ModelError names a similar one, if any, and, from the file's ``metadata``, what is missing.
    """
    if isinstance(name, str) and (found := _of_own_file(name) or _registry().get(name)):
        return found
    raise ModelError(_unsupported(name, list(_registry()), metadata))


def class_names(config: Mapping[str, Any]) -> list[str]:
    """Return the ``architectures`` of an HF config.json; ModelError where they are no names."""
    names = config.get("architectures") or []
    if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
        what = f"architectures is {printable(repr(names), 60)}"
        raise ModelError(f"config.json: {what}, expected the names of classes")
    return names


def for_hf(config: Mapping[str, Any]) -> Architecture:
    """Return the architecture of an HF config.json, by its ``architectures``; see `get`.

    A decoder of the class XForCausalLM is also known without its head, as XModel, and as a
    classifier, XForSequenceClassification.
    """
    names = class_names(config)
    found = [
        arch
        for known in (
            [text_class(name, config) or name for name in names],
            [n for name in names for n in _with_head(name)],
        )
        for arch in _registry().values()
        if any(c in arch.hf_classes for c in known) and arch.suits(config)
    ]
    if found:
        return found[0]
    if not names:
        for arch in _registry().values():
            if config.get("model_type") == arch.hf_model_type:
                return arch
    known = [*(c for a in _registry().values() for c in a.hf_classes), *WRAPPERS]
    raise ModelError(_unsupported(names[0] if names else config.get("model_type"), known, config))


def _unsupported(name: object, known: list[str], facts: Mapping[str, Any] | None) -> str:
    stems = {_stem(k): k for k in reversed(known)}
    similar = difflib.get_close_matches(_stem(name), stems, n=1, cutoff=SIMILAR)
    near = f"; the most similar name that is supported: {stems[similar[0]]}" if similar else ""
    what = f"architecture {printable(repr(name))} is not supported"
    lacks = f"; missing: {missing_piece(facts)}" if facts else ""
    if known_why := reason(name):
        lacks = f"; why: {known_why}"
    return f"{what}{near}{lacks}"


def _with_head(name: str) -> list[str]:
    """Return what the class of a decoder without a head, or with another one, is called with it."""
    stem = re.sub(r"(ForSequenceClassification|(?<!LMHead)Model)$", "", name)
    if stem == name:
        return []
    return [f"{stem}ForCausalLM", f"{stem.removesuffix('Text')}ForCausalLM"]


def _stem(name: object) -> str:
    """Return what tells architectures apart in a name: not what a class is for."""
    return re.split("For[A-Z]|LMHead|Model$", str(name)[:100])[0].lower()
