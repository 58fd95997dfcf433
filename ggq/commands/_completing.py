"""What the Tab key offers for arguments: models by name, files, block and file types.

It is asked for by a shell's completion only (``ggq completion``).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import click
from click.shell_completion import CompletionItem

__all__ = ["complete"]

_FILES = ("file", "first", "second", "source", "out", "out_dir", "files", "words")
_MODELS = ("model", "models", "model_option", "draft")
_TYPES = ("type", "kind", "output_tensor_type", "token_embedding_type")


def complete(name: str, command: click.Command) -> None:
    """Have the command's parameters of plain text offer what belongs there."""
    for parameter in command.params:
        if parameter.type is not click.STRING:
            continue
        if parameter.name in _MODELS:
            parameter.type = _Offered(_known, files=True)
        elif parameter.name in _TYPES:
            parameter.type = _Offered(_types)
        elif parameter.name == "rest":  # of ggq quantize: a file or a type
            parameter.type = _Offered(_types, files=True)
        elif parameter.name == "name":
            parameter.type = _Offered(_fetchable if name == "pull" else _stored)
        elif parameter.name in _FILES:
            parameter.type = _Offered(list, files=True)


class _Offered(click.ParamType[str]):
    """Text, for which words and perhaps files are offered."""

    name = "text"

    def __init__(self, words: Callable[[], list[str]], files: bool = False) -> None:
        self._words, self._files = words, files

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Return the words that begin like ``incomplete``, whatever their case, and files."""
        begun = incomplete.lower()
        words = [word for word in self._words() if word.lower().startswith(begun)]
        if self._files and not words:
            return [CompletionItem(incomplete, type="file")]  # the shell knows them
        if self._files:
            words += sorted(_beginning(incomplete))
        return [CompletionItem(word) for word in words]


def _beginning(text: str) -> list[str]:
    folder, _ = os.path.split(text)
    found = (os.path.join(folder, entry.name) for entry in Path(folder or ".").iterdir())
    return [path for path in found if path.startswith(text)]


def _stored() -> list[str]:
    from ggq import hub

    return list(dict.fromkeys([*(m.name for m in hub.stored_models()), *hub.KNOWN]))


def _known() -> list[str]:
    return list(dict.fromkeys([*_stored(), *_fetchable()]))


def _fetchable() -> list[str]:
    from ggq import hub

    return [*hub.KNOWN, *hub.listed()]


def _types() -> list[str]:
    from ggq.converters.grids import types
    from ggq.quants.file_types import FILE_TYPES

    return [*FILE_TYPES, *types()]
