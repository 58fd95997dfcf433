"""What a model is called: parts of a repository's or folder's name, size label, file name.

The rules are those of ggml's docs/gguf.md (naming convention) and of gguf-py's heuristics; nothing
is known of files or tensors here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

__all__ = ["NameParts", "file_name", "model_id", "name_parts", "size_label", "title"]

VERSION = re.compile(r"(v|iter)?\d+([.]\d+)*", re.I)
ENCODING = re.compile(r"i?q\d(_\w)*|b?fp?(16|32)", re.I)
SIZE = re.compile(r"(([A]|\d+[x])?\d+([._]\d+)?[KMBT][\d]?|small|mini|medium|large|x?xl)", re.I)
FINETUNE = re.compile(r"chat|instruct|vision|lora", re.I)


@dataclass(frozen=True)
class NameParts:
    """The parts of a model's name; None where the name does not say."""

    name: str | None = None
    organization: str | None = None
    basename: str | None = None
    finetune: str | None = None
    version: str | None = None
    size_label: str | None = None


def title(name: str) -> str:
    """Return a name for people: dashes to spaces, plain lower-case words capitalised."""
    words = name.strip().replace("-", " ").split()
    plain = re.compile(r"(v\d+(?:\.\d+)*|\d.*)")
    return " ".join(w.title() if w.islower() and not plain.fullmatch(w) else w for w in words)


def model_id(path: Path) -> str:
    """Return the repository id of a folder in the hub's cache, else the path's own last part."""
    path = path.resolve()
    repo = path.parent.parent.name
    if path.parent.name == "snapshots" and repo.startswith("models--"):
        return repo.removeprefix("models--").replace("--", "/", 1)
    return path.name


def size_label(n_params: int, n_shared: int = 0, n_per_expert: int = 0, n_expert: int = 0) -> str:
    """Return "7B", "135M" or "8x7B" for parameter counts, two digits at least."""
    if n_expert:
        return f"{n_expert}x{size_label(n_shared + n_per_expert)}"
    for limit, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (0, "K")):
        if n_params > limit or unit == "K":
            value = n_params / (limit or 1e3)
            digits = max(2 - len(str(round(value)).lstrip("0")), 0)
            return f"{value:.{digits}f}{unit}"
    raise AssertionError


def file_name(parts: NameParts, encoding: str) -> str:
    """Return ``BaseName-SizeLabel-FineTune-Version-Encoding.gguf`` of what is known."""
    words = [parts.basename or parts.name or "model", parts.size_label, parts.finetune]
    words += [parts.version, encoding]
    return "-".join(_plain(w) for w in words if w) + ".gguf"


def _plain(word: str) -> str:
    """Return ``word`` as part of a file name: no separators, spaces or control characters."""
    return re.sub(r"[^\w.+()-]+", "-", word.strip()).strip("-.") or "model"


def name_parts(model_id: str, n_params: int = 0) -> NameParts:
    """Split ``organization/Base-7B-Instruct-v1`` into its parts; a name with spaces stays whole."""
    if " " in model_id:
        return NameParts(name=model_id)
    before, _, full = model_id.rpartition("/")
    organization = before if before and not before.startswith(".") else None
    words = [w for w in full.split("-") if w]
    kinds = [_kind(i, w, n_params) for i, w in enumerate(words)]
    words = [w for w, _ in kinds]
    labels = [k for _, k in kinds]
    if any(k == "size_label" and re.search(r"\d", w) for w, k in zip(words, labels, strict=True)):
        pairs = zip(words, labels, strict=True)
        labels = [None if k == "size_label" and w.isalpha() else k for w, k in pairs]
    found = _assign(words, labels)
    if not any(found.get(k) for k in ("size_label", "finetune", "version")):
        found["basename"] = None
    return NameParts(name=full or None, organization=organization, **found)


def _kind(i: int, word: str, n_params: int) -> tuple[str, str | None]:
    """Return (word as it is written, what it says) of the i-th word."""
    if VERSION.fullmatch(word):
        return word, "version"
    if ENCODING.fullmatch(word):
        return word.upper(), "type"
    if i > 0 and SIZE.fullmatch(word):
        return _size(word, n_params)
    return word, "finetune" if i > 0 and FINETUNE.fullmatch(word) else None


def _size(word: str, n_params: int) -> tuple[str, str]:
    """Return a size as a label, or as a finetune part where it cannot be this model's size."""
    word = word.replace("_", ".")
    if word[-1].isdecimal():  # bloom-7b1 means 7.1B
        word = f"{word[:-2]}.{word[-1]}{word[-2]}"
    if len(word) > 1 and word[-2].isdecimal():
        word = word[:-1] + word[-1].upper()
    match = re.fullmatch(r"([\d.]+)([KMBT])", word)
    if n_params and match:
        says = float(match[1]) * 1000 ** " KMBT".index(match[2])
        if abs(says - n_params) > 7 * n_params // 8:
            return word[:-1] + word[-1].lower(), "finetune"  # a context length
    return word, "size_label"


def _assign(words: list[str], labels: list[str | None]) -> dict[str, str | None]:
    """Give the leading plain words and versions to the base name, later plain words to finetune."""
    base: list[bool] = []
    for word, label in zip(words, labels, strict=True):
        leading = len(base) == sum(base)
        base.append(leading and (label == "version" or (label is None and word[0].isalpha())))
    labels = [k if k or b else "finetune" for k, b in zip(labels, base, strict=True)]
    for i in reversed(range(len(words))):  # a version at the end belongs to no base name
        if not (base[i] and labels[i]):
            break
        base[i] = False
    found: dict[str, str | None] = {"basename": "-".join(_where(words, base)) or None}
    for kind in ("size_label", "finetune", "version"):
        own = [
            k == kind and not (b and kind == "version") for k, b in zip(labels, base, strict=True)
        ]
        chosen = _where(words, own)
        if kind == "size_label":
            chosen = list(dict.fromkeys(chosen))
        found[kind] = "-".join(chosen) or None
    return found


def _where(words: list[str], keep: list[bool]) -> list[str]:
    return [w for w, k in zip(words, keep, strict=True) if k]
