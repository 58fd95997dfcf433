"""Keys and tensors of a GGUF file that no table of its architecture knows: for warnings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ggq.errors import printable
from ggq.models.base import Architecture
from ggq.models.hparams import HParams

__all__ = ["unknown_parts", "unknown_warnings"]

# Namespaces that do not belong to the architecture: what is in them is read where it is needed.
NAMESPACES = ("general.", "tokenizer.", "split.", "quantize.", "imatrix.", "ggq.", "GGUF.")
NAMED = 3


def unknown_parts(
    gguf: Any, arch: Architecture | None, hp: HParams | None
) -> tuple[list[str], list[str]]:
    """Return a file's keys and its tensors that the architecture's tables do not know.

    Of an architecture that is not known itself (None) only keys of other namespaces are told.
    """
    own = gguf.metadata.get("general.architecture")
    if arch is None or hp is None:
        return [k for k in gguf.metadata if not k.startswith((*NAMESPACES, f"{own}."))], []
    known = {key.gguf.format(arch=arch.name) for key in arch.keys}
    keys = [k for k in gguf.metadata if k not in known and not k.startswith(NAMESPACES)]
    rows = {name for name, _, _ in arch.rows(hp)}
    return keys, [name for name in gguf.tensors if name not in rows]


def unknown_warnings(
    gguf: Any, arch: Architecture | None, hp: HParams | None, fate: str
) -> list[str]:
    """Return a line each for unknown keys and tensors; ``fate``: what becomes of them."""
    parts = zip(("key", "tensor"), unknown_parts(gguf, arch, hp), strict=True)
    return [f"{_listed(kind, names)}: unknown, {fate}" for kind, names in parts if names]


def _listed(kind: str, names: Sequence[str]) -> str:
    shown = ", ".join(printable(name, 80) for name in names[:NAMED])
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{kind}{'s' if len(names) > 1 else ''} {shown}{more}"
