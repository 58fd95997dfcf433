"""Tokenizers built from GGUF metadata, found by ``tokenizer.ggml.model``.

A family is one file named as the model value, with a function ``build(meta) -> Tokenizer``; the
folder is scanned, so a new family needs no other edit.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any

from ggq.errors import ModelError, printable

if TYPE_CHECKING:
    from ggq.runtime.tokenizers.base import Tokenizer
    from ggq.runtime.tokenizers.metadata import TokenizerMetadata

__all__ = ["Tokenizer", "families", "tokenizer_from_gguf"]


def families() -> dict[str, Callable[[TokenizerMetadata], Tokenizer]]:
    """Return the builders by value of ``tokenizer.ggml.model``: modules that have ``build``."""
    found = {m.name: import_module(f"{__name__}.{m.name}") for m in iter_modules(__path__)}
    return {name: module.build for name, module in found.items() if hasattr(module, "build")}


def tokenizer_from_gguf(source: Any) -> Tokenizer:
    """Build the tokenizer of a GGUFFile (or of a mapping of its metadata).

    Raises FormatError naming the key where the metadata is inconsistent, ModelError for a family
    or a pre-tokenizer that ggq does not know.
    """
    from ggq.runtime.tokenizers.metadata import TokenizerMetadata

    meta = TokenizerMetadata(source)
    model = meta.text("model")
    if model in (m.name for m in iter_modules(__path__)):  # no other family is imported
        build = getattr(import_module(f"{__name__}.{model}"), "build", None)
        if build:
            found: Tokenizer = build(meta)
            return found
    known = ", ".join(families())
    raise ModelError(
        f"tokenizer.ggml.model: '{printable(model)}' is not supported (known: {known})"
        if model
        else "tokenizer.ggml.model: the key is missing: this file has no tokenizer"
    )


def __getattr__(name: str) -> Any:
    if name == "Tokenizer":
        from ggq.runtime.tokenizers.base import Tokenizer

        return Tokenizer
    raise AttributeError(name)
