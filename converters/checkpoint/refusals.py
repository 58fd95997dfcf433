"""Why a path is no checkpoint that can be converted, by what lies there; nothing is opened fully.

It gives words for the refusals of others; what a checkpoint is, `folder.py` knows.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from ggq.errors import printable

__all__ = [
    "ADAPTER",
    "adapter",
    "foreign_tensor",
    "is_adapter",
    "no_config",
    "no_weights",
    "not_a_model",
    "wrapper",
]

ADAPTER = "adapter_config.json"


def is_adapter(folder: Path) -> bool:
    """Tell whether a folder holds an adapter and no model."""
    weights = folder.glob("*.safetensors")
    has_config = (folder / "config.json").is_file()
    only_adapter = not has_config or all(p.name.startswith("adapter") for p in weights)
    return (folder / ADAPTER).is_file() and only_adapter


def adapter(folder: Path, config: Mapping[str, Any]) -> str:
    """Return how to go on from a LoRA folder; ``config``: its adapter_config.json."""
    kind = config.get("peft_type")
    kind = f"{kind} adapter" if isinstance(kind, str) else "adapter"
    base = config.get("base_model_name_or_path")
    into = f" {printable(base)}" if isinstance(base, str) and base else ""
    what = f"{printable(folder)}: holds a {printable(kind)}, not a model"
    merged = f"merge it into its base{into} (ggq convert BASE --merge-lora {printable(folder)})"
    return f"{what}: {merged} or make a GGUF adapter of it (--base BASE)"


def no_config(folder: Path) -> str:
    """Return what a folder without config.json is."""
    where = printable(folder)
    if not any(folder.iterdir()):
        return f"{where}: is empty: a model's folder holds config.json, weights and a tokenizer"
    if files := sorted(folder.glob("*.gguf")):
        return f"{where}: holds GGUF files: give the file itself, such as {printable(files[0])}"
    if (folder / "model_index.json").is_file():
        return f"{where}: is a diffusers pipeline, not a language model"
    if inner := sorted(p.parent for p in folder.glob("*/config.json")):
        return (
            f"{where}: has no config.json; give the folder that has, such as {printable(inner[0])}"
        )
    return f"{where}: no config.json: is it a Hugging Face folder?"


def no_weights(folder: Path) -> str:
    """Return what a folder without weights has instead."""
    where = printable(folder)
    if files := sorted(folder.glob("*.gguf")):
        return f"{where}: no safetensors, but GGUF files: give one, such as {printable(files[0])}"
    return f"{where}: no safetensors file"


def not_a_model(path: Path) -> str | None:
    """Return why a file that is given instead of a folder or a GGUF file will not do, if known."""
    where, suffix = printable(path), path.suffix.lower()
    if suffix in (".safetensors", ".bin", ".pt", ".pth"):
        return f"{where}: is one part of a checkpoint: give the folder, {printable(path.parent)}"
    if suffix == ".json":
        return f"{where}: is one part of a checkpoint: give the folder, {printable(path.parent)}"
    return None


def wrapper(wanted: str, names: Collection[str]) -> str | None:
    """Return what to do about an unknown prefix before a name that is looked for, if any."""
    for name in names:
        if name.endswith(f".{wanted}") and name != wanted:
            prefix = name.removesuffix(wanted)
            what = f"the checkpoint's names begin with {printable(repr(prefix))}"
            return f"{what}: save the model without that wrapper"
    return None


def foreign_tensor(name: str) -> str | None:
    """Return what a tensor that no architecture has belongs to, if its name says so."""
    if ".lora_A." in name or ".lora_B." in name or ".lora_" in name:
        return "it is an adapter's: merge the adapter into its base (ggq convert BASE --merge-lora)"
    if name.endswith((".scales", ".biases")):
        return "it is of MLX's quantization, of which config.json says nothing"
    return None
