"""What a model's file says of it, for lists of models; read once for each state of a file."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from ggq.errors import FormatError, GGQError
from ggq.gguf import GGUFFile, open_gguf, spec
from ggq.gguf.summary import plain_value
from ggq.runtime.engine.projectors import beside
from ggq.runtime.server.hosting.base import Listed
from ggq.runtime.server.infill import fills_gaps

__all__ = ["Description", "describe", "quantization"]

_THINKING = ("<think>", "enable_thinking", "[THINK]", "<|channel|>", "reasoning_effort")
_ENCODERS = ("bert", "embedding", "t5encoder")


@dataclass(frozen=True)
class Description:
    """A model as its header describes it. ``problem``: why the header cannot be read, "" if it can.

    ``digest``: 64 hex digits that name this state of the file. It is the hub's SHA-256 of the
    contents where the hub's cache has it, else a hash of name, size and time.
    """

    architecture: str
    n_weights: int
    quantization: str
    n_ctx_train: int
    template: str
    license: str
    capabilities: tuple[str, ...]
    metadata: dict[str, Any]
    modified: float  # seconds since 1970
    digest: str
    problem: str = ""

    @property
    def parameter_size(self) -> str:
        """The number of weights as Ollama writes it: 134.5M, 8.0B."""
        n = self.n_weights
        return f"{n / 1e9:.1f}B" if n >= 1e9 else f"{n / 1e6:.2f}M"

    @property
    def embeds(self) -> bool:
        """Whether it is for vectors rather than for text."""
        return "completion" not in self.capabilities


def describe(listed: Listed) -> Description:
    """Return what a model's file says. A file that cannot be read is described as far as it can."""
    stat = listed.path.stat()
    return _described(listed.path, stat.st_mtime_ns, listed.size)


@lru_cache(maxsize=512)
def _described(path: Path, mtime_ns: int, size: int) -> Description:
    digest = _digest(path, mtime_ns, size)
    try:
        with open_gguf(path) as file:
            meta = file.metadata
            arch = file.get(spec.KEY_ARCHITECTURE, "unknown", str)
            template = file.get("tokenizer.chat_template", "", str)
            texts = meta.get("tokenizer.ggml.tokens", ())
            tokens = [bytes(t).decode("utf-8", "replace") for t in texts]
            return Description(
                architecture=arch,
                n_weights=sum(t.n_elements for t in file.tensors.values()),
                quantization=quantization(file),
                n_ctx_train=file.get(f"{arch}.context_length", 0, int),
                template=template,
                license=file.get("general.license", "", str),
                capabilities=_capabilities(arch, template, meta, tokens) + _sight(path, arch, meta),
                metadata={key: plain_value(meta[key]) for key in meta if _is_short(meta[key])},
                modified=mtime_ns / 1e9,
                digest=digest,
            )
    except (OSError, FormatError, GGQError) as error:
        unknown, modified = "unknown", mtime_ns / 1e9
        return Description(
            unknown, 0, unknown, 0, "", "", (), {}, modified, digest, problem=str(error)
        )


def quantization(file: GGUFFile) -> str:
    """Return the name of a file's type, such as Q4_K_M."""
    return spec.FILE_TYPES.get(file.get(spec.KEY_FILE_TYPE, -1, int), "unknown")


def _is_short(value: Any) -> bool:
    return isinstance(value, str | int | float | bool) and len(str(value)) <= 1 << 16


def _capabilities(arch: str, template: str, meta: Any, tokens: list[str]) -> tuple[str, ...]:
    if any(word in arch for word in _ENCODERS) or f"{arch}.pooling_type" in meta:
        return ("embedding",)
    found = ["completion"]
    if "tools" in template:
        found.append("tools")
    if any(mark in template for mark in _THINKING):
        found.append("thinking")
    if fills_gaps(meta, tokens):
        found.append("insert")
    return tuple(found)


def _sight(path: Path, arch: str, meta: Any) -> tuple[str, ...]:
    """Return Ollama's word for a model that sees: its projector lies beside it."""
    width = meta.get(f"{arch}.embedding_length")
    return ("vision",) if isinstance(width, int) and beside(path, width, arch) else ()


def _digest(path: Path, mtime_ns: int, size: int) -> str:
    blob = path.resolve().name
    if len(blob) == 64 and all(c in "0123456789abcdef" for c in blob):
        return blob
    return hashlib.sha256(f"{path.name} {size} {mtime_ns}".encode()).hexdigest()
