"""The general.* keys of a converted model: names, licence, tags, sampling defaults, provenance.

Read from the folder's name, README.md front matter, config.json and generation_config.json, as
convert_hf_to_gguf.py does; tensors and architecture keys are not known here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from ggq.converters.checkpoint.folder import read_json
from ggq.converters.metadata.names import NameParts, model_id, name_parts, size_label, title
from ggq.errors import GGQError, printable
from ggq.gguf import spec
from ggq.runtime.sampling.params import PREFIX, SamplingParams

__all__ = ["Item", "card_text", "general_items", "model_parts", "read_card"]

MAX_CARD = 1_000_000
SAMPLING = (  # key, names in generation_config.json, type
    ("sequence", ("sequence",), spec.STR),
    ("top_k", ("top_k",), spec.I32),
    ("top_p", ("top_p",), spec.F32),
    ("min_p", ("min_p",), spec.F32),
    ("xtc_probability", ("xtc_probability",), spec.F32),
    ("xtc_threshold", ("xtc_threshold",), spec.F32),
    ("temp", ("temperature",), spec.F32),
    ("penalty_last_n", ("penalty_last_n",), spec.I32),
    ("penalty_repeat", ("penalty_repeat", "repetition_penalty"), spec.F32),
    ("mirostat", ("mirostat",), spec.I32),
    ("mirostat_tau", ("mirostat_tau",), spec.F32),
    ("mirostat_eta", ("mirostat_eta",), spec.F32),
)
CARD_KEYS = (
    *("author", "version", "organization", "finetune", "basename", "size_label"),
    "description",
)


class Item(NamedTuple):
    """One key to write; ``type`` is the value's, or an array's items'."""

    key: str
    value: Any
    type: int | None


def model_parts(folder: Path, config: Mapping[str, Any], shapes: Iterable[Any]) -> NameParts:
    """Return the model's name parts: from config's _name_or_path, else the folder's own name.

    ``shapes`` yields (GGUF name, shape) of every tensor, for the size label.
    """
    total, shared, per_expert, n_expert = _count(shapes)
    card = read_card(folder)
    found = {k: _said(card, k) for k in asdict(NameParts())}
    path = config.get("_name_or_path")
    ids = [path] if isinstance(path, str) and path and path.count("/") <= 1 else []
    for given in [*ids, model_id(folder)]:
        for key, value in asdict(name_parts(given, total)).items():
            if found[key] is None and value is not None:
                found[key] = title(value) if key in ("name", "organization") else value
    found["size_label"] = found["size_label"] or size_label(total, shared, per_expert, n_expert)
    return NameParts(**found)


def _count(shapes: Iterable[Any]) -> tuple[int, int, int, int]:
    """Return (parameters, those outside experts, those of one expert, experts)."""
    total = shared = per_expert = experts = n_stacks = 0
    for name, shape in shapes:
        n = 1
        for dim in shape:
            n *= dim
        total += n
        if "_exps." in name and len(shape) > 2:
            per_expert, experts, n_stacks = (
                per_expert + n // shape[-3],
                experts + shape[-3],
                n_stacks + 1,
            )
        else:
            shared += n
    return total, shared, per_expert, experts // n_stacks if n_stacks else 0


def general_items(folder: Path, parts: NameParts, warnings: list[str]) -> list[Item]:
    """Return general.type, sampling defaults, names, licence and tags of an HF folder.

    What is left out is added to ``warnings``.
    """
    items = [Item("general.type", "model", spec.STR), *_sampling_items(folder, warnings)]
    card = read_card(folder)
    items.append(Item("general.name", parts.name or folder.name, spec.STR))
    for key in CARD_KEYS:
        value = getattr(parts, key, None) or _said(card, key)
        if value:
            items.append(Item(f"general.{key}", value, spec.STR))
    return items + _card_items(card)


def _sampling_items(folder: Path, warnings: list[str]) -> list[Item]:
    """Return the sampling defaults of generation_config.json that a runtime can follow."""
    generation, items = read_json(folder / "generation_config.json"), []
    for key, names, kind in SAMPLING:
        name = next((n for n in names if generation.get(n) is not None), None)
        if name is None:
            continue
        value = generation[name]
        if _fits(value, kind):
            item = Item(f"{PREFIX}{key}", int(value) if kind == spec.I32 else value, kind)
            try:
                SamplingParams.resolve(metadata={item.key: item.value})
            except GGQError:
                pass
            else:
                items.append(item)
                continue
        what = f"{name} is {printable(repr(value), 60)}, which no sampler takes"
        warnings.append(f"generation_config.json: {what}: left out")
    return items


def _said(card: Mapping[str, Any], key: str) -> str | None:
    """Return what a model card says outright, by the names that gguf-py looks for."""
    names = [key, f"model_{key}"]
    names += {"author": ["model_creator"], "basename": ["model_type"]}.get(key, [])
    return next((card[n] for n in names if isinstance(card.get(n), str) and card[n]), None)


def _fits(value: Any, kind: int) -> bool:
    if kind == spec.STR:
        return isinstance(value, str)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and abs(value) < 2**31 and (kind == spec.F32 or float(value).is_integer())


def _card_items(card: Mapping[str, Any]) -> list[Item]:
    items = []
    for key, name in (("license", "license"), ("license.name", "license_name")):
        value = card.get(name)
        if value:
            text = ",".join(value) if isinstance(value, list) else value
            items.append(Item(f"general.{key}", text, spec.STR))
    if isinstance(card.get("license_link"), str):
        items.append(Item("general.license.link", card["license_link"], spec.STR))
    items += _sources(card, "base_model", _listed(card, "base_model"))
    items += _sources(card, "dataset", _listed(card, "datasets"))
    for key, names in (
        ("tags", ("tags", "pipeline_tag")),
        ("languages", ("languages", "language")),
    ):
        values = [v for n in names for v in _listed(card, n)]
        if values:
            items.append(Item(f"general.{key}", values, spec.STR))
    return items


def _sources(card: Mapping[str, Any], kind: str, ids: list[str]) -> list[Item]:
    """Return the keys that name base models or data sets, given as repository ids."""
    items = [Item(f"general.{kind}.count", len(ids), spec.U32)] if ids else []
    for i, given in enumerate(ids):
        parts = name_parts(re.sub(r"^https?://huggingface.co/", "", given))
        values = {
            "name": parts.name and title(parts.name),
            "version": parts.version,
            "organization": parts.organization and title(parts.organization),
            "repo_url": parts.organization
            and f"https://huggingface.co/{parts.organization}/{parts.name}",
        }
        items += [Item(f"general.{kind}.{i}.{k}", v, spec.STR) for k, v in values.items() if v]
    return items


def _listed(card: Mapping[str, Any], name: str) -> list[str]:
    value = card.get(name)
    return [value] if isinstance(value, str) and value else value if isinstance(value, list) else []


def read_card(folder: Path) -> dict[str, str | list[str]]:
    """Return the front matter of README.md: text and lists of text, deeper values dropped.

    A small subset of YAML that model cards use; anything else in it is skipped.
    """
    try:
        text = (folder / "README.md").read_text(encoding="utf-8", errors="replace")[:MAX_CARD]
    except OSError:
        return {}
    lines = text.splitlines()
    if not lines or lines[0].strip() != "---":
        return {}
    card: dict[str, str | list[str]] = {}
    key = ""
    for line in lines[1:]:
        if line.strip() == "---":
            return card
        item = re.fullmatch(r"\s*-\s+([^:]+|[\"'].*[\"'])\s*", line)
        pair = re.fullmatch(r"(\w[\w-]*):\s*(.*?)\s*", line)
        if item and key:
            card[key] = [*_listed(card, key), _unquoted(item[1])]
        elif pair:
            key, value = pair[1], pair[2]
            if value.startswith("[") and value.endswith("]"):
                card[key] = [_unquoted(v) for v in value[1:-1].split(",") if v.strip()]
            elif value and value not in ("|", ">", "|-", ">-"):
                card[key], key = _unquoted(value), ""
        elif line[:1].isspace():
            continue
        else:
            key = ""
    return {}


def _unquoted(text: str) -> str:
    text = text.strip()
    if len(text) > 1 and text[0] == text[-1] == '"':
        try:
            return str(json.loads(text))
        except ValueError:
            return text[1:-1]
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] == "'" else text


def card_text(metadata: Mapping[str, Any]) -> str:
    """Return a README.md whose front matter keeps the names and licence of a GGUF file."""
    lines = ["---"]
    names = {"name": "name", "license": "license", "license.name": "license_name"}
    names |= {"license.link": "license_link"} | {k: k for k in CARD_KEYS}
    for key, name in names.items():
        value = metadata.get(f"general.{key}")
        if isinstance(value, str) and value and value.isprintable():
            lines.append(f"{name}: {json.dumps(value, ensure_ascii=False)}")
    for key, name in (("tags", "tags"), ("languages", "language")):
        values = metadata.get(f"general.{key}")
        if values is not None and hasattr(values, "texts"):
            shown = [json.dumps(v, ensure_ascii=False) for v in values.texts() if v.isprintable()]
            lines += [f"{name}:", *(f"- {v}" for v in shown)] if shown else []
    return "\n".join([*lines, "---", "", "Written by `ggq export`.", ""])
