"""Recipes: the type and the passes of a conversion as YAML or JSON, in a file or in a GGUF's keys.

A file that passes made holds its own recipe, so that it can be made again. What the passes are is
known by their own files.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ggq.converters.calibration.text import BUILT_IN
from ggq.converters.checkpoint.tensors import SourceTensor
from ggq.converters.conversion import Conversion
from ggq.converters.metadata.general import Item
from ggq.converters.prepasses.base import Packed, Pass, Prepass, parse
from ggq.converters.prepasses.presets import QUALITY, passes
from ggq.errors import FormatError, UsageError, printable
from ggq.gguf import GGUFFile, open_gguf, spec
from ggq.quants.mixtures import UNQUANTIZED

__all__ = ["ENVIRONMENT", "KEY", "Recipe", "read_recipe", "recipe_of", "run_passes"]

KEY, ENVIRONMENT = "ggq.recipe", "ggq.recipe.environment"
KNOWN = ("type", "quality", "calibration", "calibration_sha256", "passes")
UNTOLD = ("calibration", "progress", "threads")  # where and how it ran, not what was done


@dataclass(frozen=True)
class Recipe:
    """``type``: None for the default; ``steps`` as `parse` takes them; ``sha256`` of the text."""

    type: str | None = None
    quality: str | None = None
    calibration: str | None = None
    sha256: str | None = None
    steps: tuple[str | Pass, ...] = ()

    def passes(self, calibration: str | os.PathLike[str] | None = None) -> list[Pass]:
        """Return the passes; ``calibration`` stands for the recipe's own text."""
        text = calibration if calibration is not None else self.calibration
        if self.sha256 is not None and _sha256(text) != self.sha256:
            raise UsageError(
                f"{printable(text or 'the built-in calibration text')} is not the text that the "
                "recipe was run with (calibration_sha256)"
            )
        return passes(self.quality, self.steps, text)


def read_recipe(path: str | os.PathLike[str]) -> Recipe:
    """Return the recipe of a .yaml or .json file, or the one that a .gguf file was made by.

    UsageError or FormatError where there is none, or where it says something unknown.
    """
    path = Path(path)
    where = printable(path)
    if path.suffix == ".gguf":
        with open_gguf(path) as file:
            return recipe_of(file)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{where}: cannot read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise FormatError(f"{where}: is not UTF-8 text") from None
    return _recipe(_loaded(text, where), where, path.parent)


def recipe_of(file: GGUFFile) -> Recipe:
    """Return the recipe that an open file was made by; UsageError where it tells none."""
    text, where = file.get(KEY, type=str), printable(file.path)
    if text is None:
        raise UsageError(f"{where}: no recipe in it (key {KEY})")
    return _recipe(_loaded(text, where), where, file.path.parent)


def _loaded(text: str, where: str) -> Any:
    """Return what JSON or YAML text says; JSON needs no library."""
    try:
        return json.loads(text)
    except ValueError:
        pass
    try:
        import yaml
    except ImportError:
        raise UsageError(f"{where}: to read YAML, pip install pyyaml; JSON needs nothing") from None
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        line = printable(str(error).replace("\n", " "), 200)
        raise FormatError(f"{where}: is no YAML: {line}") from None


def _recipe(found: Any, where: str, folder: Path) -> Recipe:
    if not isinstance(found, dict):
        raise FormatError(f"{where}: a recipe is an object with {', '.join(KNOWN)}")
    for key in found:
        if key not in KNOWN:
            raise FormatError(f"{where}: {printable(key)} is not one of {', '.join(KNOWN)}")
    for key in KNOWN[:-1]:
        if not isinstance(found.get(key), (str, type(None))):
            raise FormatError(f"{where}: {key} must be text, not {printable(found[key], 40)}")
    if found.get("quality") is not None and found["quality"] not in QUALITY:
        told = printable(found["quality"], 40)
        raise FormatError(f"{where}: quality {told}: one of {', '.join(QUALITY)}")
    given = found.get("passes") or []
    if not isinstance(given, list):
        raise FormatError(f"{where}: passes must be a list")
    text = found.get("calibration")
    if text is not None and not Path(text).exists() and (folder / text).exists():
        text = str(folder / text)
    steps = tuple(_step(one, where) for one in given)
    return Recipe(found.get("type"), found.get("quality"), text, found.get(KNOWN[3]), steps)


def _step(given: Any, where: str) -> str:
    """Return ``name:key=value,...`` of one entry: text, or a name with its options."""
    if isinstance(given, str):
        parse(given)
        return given
    if not isinstance(given, dict) or len(given) != 1:
        raise FormatError(f"{where}: a pass is a name, or one name with its options")
    ((name, options),) = given.items()
    options = {} if options is None else options
    if not isinstance(options, dict) or any(
        not isinstance(v, (bool, int, float, str)) or "," in str(v) for v in options.values()
    ):
        raise FormatError(f"{where}: the options of {printable(name)} must be numbers or words")
    text = f"{name}:" + ",".join(f"{key}={value}" for key, value in options.items())
    parse(text)
    return text


def run_passes(job: Conversion, passes: Sequence[Pass]) -> None:
    """Run ``passes`` on a conversion; where all are ggq's own, write their recipe, too.

    UsageError before the first where the file could not be written or a library is missing.
    """
    if not passes:
        return
    job.check()
    own = [one for one in passes if isinstance(one, Prepass)]
    for known in own:
        known.check_needs()
    for one in passes:
        before = dict(job.tensors)
        one(job)
        _note_undone(job, before, one)
    if len(own) == len(passes):
        job.items.append(Item(KEY, json.dumps(_told(job, own)), spec.STR))
        job.items.append(Item(ENVIRONMENT, _environment(), spec.STR))


def _environment() -> str:
    """Return what sums may depend on in their last bits: processor, libraries, threads."""
    from ggq.simd import target  # imports numba, which a dry run does without

    parts = [f"{platform.machine()} {target.ISA}", f"numpy {version('numpy')}"]
    if (torch := sys.modules.get("torch")) is not None:  # a pass has imported it
        parts.append(f"torch {torch.__version__} on {torch.get_num_threads()} threads")
    return ", ".join(parts)


def _note_undone(job: Conversion, before: Mapping[str, SourceTensor], one: Pass) -> None:
    """Warn where ``one`` put other values in the place of blocks that were finished before."""
    planned = dict(job.plan.types)
    undone = [
        n
        for n, t in before.items()
        if job.tensors[n] is not t and len(t.shape) > 1  # trained norms are no blocks
        if isinstance(t, Packed) or t.type_name == planned.get(n)
        if t.type_name not in UNQUANTIZED
    ]
    if undone and not getattr(one, "REFINES", False):
        name = one.name if isinstance(one, Prepass) else repr(one)
        what = f"{len(undone)} tensors whose codes an earlier pass or the source had chosen"
        told = f"{printable(name)} changes {what}, such as {printable(undone[0])}"
        job.warnings.append(told)


def _told(job: Conversion, passes: Sequence[Prepass]) -> dict[str, Any]:
    """Return the recipe of what was run."""
    texts = {one.calibration for one in passes}
    told: dict[str, Any] = {"type": job.plan.file_type.name}
    if len(texts) == 1:
        (text,) = texts
        told |= {} if text is None else {"calibration": Path(text).name}
        told["calibration_sha256"] = _sha256(text)
    told["passes"] = [{one.name: _options(one)} for one in passes]
    return told


def _options(one: Prepass) -> dict[str, Any]:
    return {f.name: getattr(one, f.name) for f in fields(one) if f.init and f.name not in UNTOLD}


def _sha256(text: str | os.PathLike[str] | None) -> str:
    try:
        data = Path(BUILT_IN if text is None else text).read_bytes()
    except OSError as error:
        raise UsageError(f"{printable(text)}: cannot read: {error.strerror}") from None
    return hashlib.sha256(data).hexdigest()
