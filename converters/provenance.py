"""Provenance: what a file was made of and how, as one key that a verification can follow.

``ggq.provenance`` is JSON: the tool's version, the source's name and revision, SHA-256 of every
file that a conversion reads, the type asked for, options other than their defaults, and the
importance matrix. Passes stand in ``ggq.recipe``. How it is compared is known elsewhere.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import ggq
from ggq.converters.checkpoint.repository import SMALL, WEIGHTS
from ggq.converters.conversion import Conversion, Options
from ggq.converters.imatrix import Imatrix
from ggq.converters.metadata.general import Item
from ggq.converters.metadata.names import model_id
from ggq.errors import FormatError, UsageError, printable
from ggq.gguf import GGUFFile, spec
from ggq.hub import file_sha256
from ggq.quants.mixtures import UNQUANTIZED, MixtureOptions

__all__ = [
    "KEY",
    "listed",
    "provenance_item",
    "read_provenance",
    "recorded_options",
]

KEY, VERSION, TYPES = "ggq.provenance", "ggq.version", "ggq.types"
OPTIONS = ("via", "pre")  # of `Options`: what decides bytes and is not in the file otherwise
MIXTURE = ("pure", "tensor_types", "output_tensor_type", "token_embedding_type")
NOT_READ = "0" * 64  # of an outline, whose weights are holes


def listed(counts: Counter[str]) -> str:
    """Return counted types as the keys ``ggq.types`` and ``ggq.source_types`` tell them."""
    return " ".join(f"{name}:{n}" for name, n in counts.most_common())


def provenance_item(job: Conversion, source: Path) -> Item:
    """Return the key for a planned conversion of a folder or a GGUF file; reads all of it."""
    told: dict[str, Any] = {"ggq": ggq.__version__, "source": model_id(source)}
    if revision := _revision(source):
        told["revision"] = revision
    digest = (lambda path: NOT_READ) if job.options.outline else file_sha256
    told["files"] = {name: digest(path) for name, path in _source_files(job, source).items()}
    told["type"] = job.plan.file_type.name
    if options := _changed(job.options, OPTIONS) | _changed(job.options.mixture, MIXTURE):
        told["options"] = options
    if job.imatrix is not None:
        told["imatrix"] = _matrix(job.imatrix)
    return Item(KEY, json.dumps(told), spec.STR)


def _source_files(job: Conversion, source: Path) -> dict[str, Path]:
    """Return name -> path of the files that a conversion of ``source`` reads."""
    if job.copy_from is not None:
        return {shard.path.name: shard.path for shard in job.copy_from.shards}
    found = [p for pattern in (*SMALL, WEIGHTS) for p in source.glob(pattern)]
    found += source.glob("[0-9]*_Pooling/config.json")
    read = [p for p in found if p.is_file() and not p.name.startswith("consolidated")]
    return {p.relative_to(source).as_posix(): p for p in sorted(read)}


def _revision(source: Path) -> str | None:
    """Return the commit of a folder in the hub's cache."""
    path = source.resolve()
    in_cache = path.parent.name == "snapshots" and re.fullmatch(r"[0-9a-f]{40}", path.name)
    return path.name if in_cache else None


def _changed(options: Options | MixtureOptions, names: tuple[str, ...]) -> dict[str, Any]:
    given = {f.name: (getattr(options, f.name), f.default) for f in fields(options)}
    return {n: given[n][0] for n in names if given[n][0] != given[n][1]}


def _matrix(matrix: Imatrix) -> dict[str, str]:
    path = Path(matrix.path)
    return {"name": path.name} | ({"sha256": file_sha256(path)} if path.is_file() else {})


def is_ggqs(file: GGUFFile) -> bool:
    """Tell whether ggq wrote the file as it is: llama-quantize carries the keys of its source over.

    Such a file holds quantized tensors, its ``ggq.types`` tells of none.
    """
    if VERSION not in file.metadata:
        return False
    told = {part.rpartition(":")[0] for part in str(file.metadata.get(TYPES, "")).split()}
    found = {t.type_name for t in file.tensors.values()}
    return not told <= {*UNQUANTIZED} or found <= {*UNQUANTIZED}


def read_provenance(file: GGUFFile) -> dict[str, Any] | None:
    """Return what a file says of its making, None where it says nothing; FormatError."""
    text = file.get(KEY, type=str)
    if text is None or not is_ggqs(file):
        return None
    where = f"{printable(file.path)}: key {KEY}"
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise FormatError(f"{where}: is not JSON") from None
    objects = ("files", "options", "imatrix")
    if not isinstance(found, dict) or any(not isinstance(found.get(k, {}), dict) for k in objects):
        raise FormatError(f"{where}: is not an object as ggq writes it")
    return found


def recorded_options(options: Mapping[str, Any]) -> Options:
    """Return the options that a provenance tells; FormatError where they are none."""
    known = {k: v for k, v in options.items() if k in MIXTURE}
    rest = {k: v for k, v in options.items() if k in OPTIONS}
    if len(known) + len(rest) < len(options):
        other = next(k for k in options if k not in (*OPTIONS, *MIXTURE))
        raise FormatError(f"key {KEY}: option {printable(other)} is not one that ggq knows")
    pure, pairs = known.pop("pure", False), known.pop("tensor_types", ())
    if not isinstance(pure, bool) or any(not isinstance(v, str) for v in known.values()):
        raise FormatError(f"key {KEY}: options: {printable(dict(options), 200)}")
    try:
        types = tuple((str(pattern), str(kind)) for pattern, kind in pairs)
        return Options(mixture=MixtureOptions(pure=pure, tensor_types=types, **known), **rest)
    except (TypeError, ValueError, UsageError) as error:
        raise FormatError(f"key {KEY}: options: {printable(error, 200)}") from None
