"""Plans a folder for serving engines from a Hugging Face folder or a GGUF file; reads no weights.

The source is opened as for a GGUF file, so that passes work on it as they do there.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from ggq.converters import grids
from ggq.converters.checkpoint.folder import read_json
from ggq.converters.checkpoint.joined import stacked
from ggq.converters.checkpoint.repository import fetch
from ggq.converters.checkpoint.transforms import TRANSFORMS
from ggq.converters.conversion import Conversion, Options
from ggq.converters.export import dtype_of
from ggq.converters.grids import GROUP_SIZES, ServingType
from ggq.converters.imatrix import Imatrix
from ggq.converters.metadata.general import Item
from ggq.converters.prepare import prepare
from ggq.converters.provenance import KEY as PROVENANCE
from ggq.converters.serving.folder import FolderConversion, lossless
from ggq.converters.serving.plan import GROUP, ServingPlan, plan_folder
from ggq.errors import ModelError, UsageError, option, printable
from ggq.models.base import Architecture
from ggq.models.hparams import check_generates
from ggq.models.transform import Transform
from ggq.quants.mixtures import UNQUANTIZED

__all__ = ["prepare_folder", "refuse_options"]

DTYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}


def refuse_options(options: Options) -> None:
    """Refuse, where a GGUF file is written, what only folders have; UsageError."""
    names = ", ".join(grids.types())
    for flag, value in (("--group-size", options.group_size), ("--ignore", options.ignore)):
        if value:
            raise UsageError(f"{option(flag)}: for the types of serving engines only: {names}")


def prepare_folder(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str] | None,
    chosen: ServingType,
    imatrix: Imatrix | str | os.PathLike[str] | None,
    options: Options,
) -> FolderConversion:
    """Open ``source`` and plan a folder of the type; UsageError, ModelError for what cannot be."""
    _refuse(chosen, options)
    if out is not None and Path(out).suffix == ".gguf":
        what = f"{chosen.name} makes a folder for serving engines: name it without .gguf"
        raise UsageError(f"{printable(out)}: {what}")
    if not Path(source).exists() and not options.outline:
        source = fetch(str(source))
    opened = replace(options, allow_requantize=True, check_tokenizer=False)
    job = prepare(source, None, "F32", imatrix, opened)
    try:
        return _planned(job, Path(source), out, chosen, options)
    except BaseException:
        job.close()
        raise


def _refuse(chosen: ServingType, options: Options) -> None:
    """Refuse options of files; UsageError."""
    mixture = options.mixture
    given = {
        "--pure": mixture.pure,
        "--tensor-type": mixture.tensor_types,
        "--output-tensor-type": mixture.output_tensor_type,
        "--token-embedding-type": mixture.token_embedding_type,
        "--via": options.via,
        "--pre": options.pre,
        "--no-mtp": not options.mtp,
        "--base": options.base,
    }
    for flag, value in given.items():
        if value:
            other = "; --ignore keeps modules as they are" if "tensor" in flag else ""
            raise UsageError(f"{option(flag)}: not for a folder of {chosen.name}{other}")
    size = options.group_size
    if size is not None and not chosen.grouped:
        raise UsageError(f"{option('--group-size')}: {chosen.name} has a scale for each row")
    if size is not None and size not in GROUP_SIZES:
        known = ", ".join(map(str, GROUP_SIZES))
        raise UsageError(f"{option('--group-size')} {size}: one of {known}")


def _planned(
    job: Conversion,
    source: Path,
    out: str | os.PathLike[str] | None,
    chosen: ServingType,
    options: Options,
) -> FolderConversion:
    from ggq import models

    arch = models.get(job.arch)
    hp = job.hparams if job.copy_from is None else arch.hparams(job.copy_from)
    folder = source if source.is_dir() else None
    config = read_json(folder / "config.json", required=True) if folder else None
    _check(arch, hp, config, chosen)
    dtype = chosen.dtype or _dtype(job, config)
    group = options.group_size or _group(job, chosen, dtype)
    plan = plan_folder(job, arch, hp, chosen, group, dtype)
    if not options.allow_requantize:
        _refuse_requantizing(job, plan)
    facts = {f.name: getattr(job, f.name) for f in fields(Conversion)}
    name = Path(out) if out is not None else Path(f"{_name(source)}-{chosen.name}")
    facts |= {"out": name, "plan": plan, "options": options, "inputs": chosen.inputs}
    made = FolderConversion(**facts, architecture=arch, full=hp, source=folder, config=config)
    made.items = [_of_folder(i, plan, options) for i in made.items if i.key != "ggq.types"]
    if kept := sum(lossless(job.tensors[n], grids.kind(t)) for n, t in plan.types):
        made.warnings.append(f"the codes of {kept} tensors are kept as they are")
    if config and config.get("auto_map"):
        made.warnings.append("config.json names code of its own (auto_map), which is not copied")
    return made


def _of_folder(item: Item, plan: ServingPlan, options: Options) -> Item:
    """Return the item; a provenance names the folder's type, groups and exceptions."""
    if item.key != PROVENANCE:
        return item
    told = {**json.loads(item.value), "type": plan.file_type.name}
    told |= {"group_size": plan.group} if plan.group else {}
    told |= {"ignore": list(options.ignore)} if options.ignore else {}
    return item._replace(value=json.dumps(told))


def _name(source: Path) -> str:
    """Return what a source is called: a file without its ending, a folder or repository whole."""
    resolved = source.resolve()
    return resolved.stem if resolved.is_file() else resolved.name


def _check(
    arch: Architecture, hp: Any, config: Mapping[str, Any] | None, chosen: ServingType
) -> None:
    """Refuse models that a folder of the type cannot be made of; ModelError, UsageError."""
    check_generates(hp)
    if not arch.exports or any(_mixes(TRANSFORMS[row.transform]) for row in arch.tensors):
        raise ModelError(f"{arch.name}: a folder of {chosen.name} is not supported")
    if config is not None and "text_config" in config:
        what = "a model inside another one (text_config), such as one that sees"
        raise ModelError(f"{what}: a folder of {chosen.name} would lack the rest")


def _mixes(transform: Transform) -> bool:
    """Tell whether a tensor of the folder holds several of ours, or our columns in another order.

    Scales of groups would have to be taken apart, too.
    """
    joined = transform.join not in (None, stacked) or transform.whole is not None
    return joined or transform.undo_columns is not None


def _dtype(job: Conversion, config: Mapping[str, Any] | None) -> str:
    """Return the dtype of what is not quantized: the model's own."""
    if job.copy_from is not None:
        return dtype_of(job.copy_from, None)
    stored = job.tensors["token_embd.weight"].type_name
    if stored in DTYPES.values():
        return stored
    told = (config or {}).get("dtype") or (config or {}).get("torch_dtype")
    return DTYPES.get(str(told), "F16")


def _group(job: Conversion, chosen: ServingType, dtype: str) -> int:
    """Return the weights that share a scale: 32 where a file's own blocks are kept so."""
    if chosen.grouped:
        grid = grids.grid(chosen.codes, 32, dtype)
        if any(lossless(t, grid) for t in job.tensors.values() if len(t.shape) > 1):
            return 32
    return GROUP


def _refuse_requantizing(job: Conversion, plan: ServingPlan) -> None:
    """Refuse blocks that would be quantized once more; UsageError."""
    if job.copy_from is None:
        return  # as for files: told below
    for name, kind in plan.types:
        tensor = job.tensors[name]
        if not grids.is_grid(kind) or tensor.type_name in UNQUANTIZED:
            continue
        if not lossless(tensor, grids.kind(kind)):
            what = f"tensor {printable(name)} is already {tensor.type_name}; {kind} on top of it"
            allow = option("--allow-requantize", "allow_requantize=True")
            raise UsageError(f"{what} loses quality, {allow} does it anyway")
