"""Plans the conversion of a model's vision part to a projector file, in the form llama.cpp loads.

Which family it is, its keys, tensors and their names are known to `ggq.models.vision`.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any

from ggq import quants
from ggq.converters.checkpoint.folder import Checkpoint, read_json
from ggq.converters.checkpoint.tensors import SourceTensor, hf_tensors
from ggq.converters.conversion import Conversion, Options
from ggq.converters.metadata import general
from ggq.errors import ModelError, UsageError, option, printable
from ggq.gguf import spec
from ggq.models import vision
from ggq.models.table import Tensor
from ggq.models.vision.tower import Tower
from ggq.quants.mixtures import MixtureOptions, Plan, file_type

__all__ = ["MMPROJ_TYPES", "from_vision", "left_out", "settings_of", "stored_type"]

MMPROJ_TYPES = ("F16", "BF16", "F32", "Q8_0")
NOT_MODEL = (
    "general.type",
    "general.sampling",
)  # keys that a projector has otherwise or not at all
VALUE_TYPES = {"u32": spec.U32, "f32": spec.F32, "bool": spec.BOOL, "str": spec.STR}


def from_vision(
    folder: Path, wanted: str, options: Options, stack: contextlib.ExitStack
) -> Conversion:
    """Return the plan for the vision part of a Hugging Face folder; reads no weights.

    ``wanted``: one of `MMPROJ_TYPES`. Raises GGQError naming the option, setting or tensor.
    """
    kind = file_type(wanted)
    if kind.name not in MMPROJ_TYPES:
        what = f"a projector file is stored as {', '.join(MMPROJ_TYPES)}, not {kind.name}"
        raise UsageError(f"{option('--mmproj-type')}: {what}")
    _check_options(options)
    checkpoint = Checkpoint(folder)
    stack.callback(checkpoint.close)
    tower = vision.for_hf(checkpoint.config)
    if tower is None:
        raise ModelError(f"{printable(folder)}: {_no_eyes(checkpoint.config)}")
    config = settings_of(folder, checkpoint.config)
    checkpoint.config = config
    checkpoint.tensors = {
        name: replace(t, name=name)  # type: ignore[type-var]
        for name, t in ((tower.renamed(n), t) for n, t in checkpoint.tensors.items())
    }
    sight: Any = tower.sight(config)
    tensors, skipped = hf_tensors(checkpoint, tower, sight)  # type: ignore[arg-type]
    rows = {name: row for name, row, _ in tower.rows(sight)}
    plan = Plan(kind)
    for tensor in tensors:
        chosen, wish = stored_type(tensor.shape, rows[tensor.name], kind.name)
        plan.types.append((tensor.name, chosen))
        if chosen != wish:
            plan.fallbacks.append((tensor.name, wish, chosen))
    found = Conversion(Path(), vision.CLIP, sight, {t.name: t for t in tensors}, plan, options)
    found.items, found.warnings = _items(folder, config, tower, tensors, kind.number)
    found.warnings = [*checkpoint.warnings, *found.warnings, *_unseen(folder, config)]
    del skipped  # the text model: whoever asks for the projector knows
    return found


def settings_of(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    """Return config.json with what the folder says of preprocessing under "preprocessor"."""
    said: dict[str, Any] = {}
    for name, inner in (
        ("preprocessor_config.json", "media_proc_cfg"),
        ("processor_config.json", "image_processor"),
    ):
        found = read_json(folder / name)
        nested = found.get(inner)
        said |= {**found, **(nested if isinstance(nested, dict) else {})}
    return {**config, "preprocessor": said}


def left_out(checkpoint: Checkpoint, with_eyes: bool) -> list[str]:
    """Return a line for each part that a text model's file lacks, and how to have it.

    ``with_eyes``: the vision part is written, too.
    """
    config, names = checkpoint.config, checkpoint.tensors
    told = _unseen(checkpoint.folder, config)
    if with_eyes or not isinstance(config.get("vision_config"), dict):
        return told
    tower = vision.for_hf(config)
    if tower is None:
        what = "the vision part is left out: it is of no kind that ggq converts (docs/vision.md)"
        return [*told, what]
    if not any(not tower.ignores(tower.renamed(n), None) for n in names):  # type: ignore[arg-type]
        return told
    flag = option("--mmproj", "mmproj=True")
    what = f"the vision part is left out: {flag} writes it, as a file of its own (docs/vision.md)"
    return [*told, what]


def _unseen(folder: Path, config: dict[str, Any]) -> list[str]:
    """Return a line for sounds and one for films, where a folder says how a model takes them."""
    ears = isinstance(config.get("audio_config"), dict)
    told = ["the part that hears is left out: ggq converts what reads and sees"] if ears else []
    said = [name for name in ("video_config",) if isinstance(config.get(name), dict)]
    said += [name for name in ("video_preprocessor_config.json",) if (folder / name).is_file()]
    if isinstance(read_json(folder / "processor_config.json").get("video_processor"), dict):
        said.append("processor_config.json: video_processor")
    what = f"films are left out ({', '.join(said)}): ggq shows a model pictures alone"
    return [*told, what] if said else told


def _no_eyes(config: dict[str, Any]) -> str:
    if not isinstance(config.get("vision_config"), dict):
        return "the model has no vision part (config.json has no vision_config)"
    names = config.get("architectures") or [None]
    known = sorted({c for t in vision.all_towers() for c in t.hf_classes})
    what = f"the vision part of {printable(repr(names[0]), 80)} is not converted"
    return f"{what}; those of these are: {', '.join(known)}"


def _check_options(options: Options) -> None:
    """Refuse what is asked for and no projector's business; UsageError."""
    refused = {
        "--merge-lora": options.merge_lora,
        "--base": options.base,
        "--via": options.via,
        "--pure, --tensor-type and the like": replace(options.mixture, imatrix=False)
        != MixtureOptions(),
        "--split-max-size": options.split_max_bytes,
    }
    for flag, given in refused.items():
        if given:
            raise UsageError(f"{option(flag)}: not for a projector file alone")


def stored_type(shape: tuple[int, ...], row: Tensor, wanted: str) -> tuple[str, str]:
    """Return the type that llama.cpp's converter gives a tensor, and that before shapes count."""
    if row.f32 or len(shape) == 1 or row.role == "kept":
        wish = "F32"
    elif row.role == "half":
        wish = "F16"
    elif row.role == "patch":
        wish = "F16" if wanted == "F16" else "F32"
    else:
        wish = wanted
    fits = shape[-1] % quants.get(wish).block_size == 0
    return (wish if fits else "F16"), wish


def _items(
    folder: Path,
    config: dict[str, Any],
    tower: Tower,
    tensors: list[SourceTensor],
    number: int,
) -> tuple[list[general.Item], list[str]]:
    """Return the keys of the file, and what is told of them."""
    parts = general.model_parts(folder, config, [(t.name, t.shape) for t in tensors])
    told: list[str] = []
    items = [general.Item(spec.KEY_ARCHITECTURE, vision.CLIP, spec.STR)]
    items.append(general.Item("general.type", "mmproj", spec.STR))
    items += [
        i for i in general.general_items(folder, parts, told) if not i.key.startswith(NOT_MODEL)
    ]
    for key, value, kind in tower.metadata(config):
        listed = list(value) if isinstance(value, tuple) else value
        items.append(general.Item(key, listed, VALUE_TYPES[kind.removesuffix("s")]))
    items.append(general.Item("general.file_type", number, spec.U32))
    items.append(general.Item("general.quantization_version", 2, spec.U32))
    return items, []
