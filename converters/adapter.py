"""Plans the conversion of a PEFT adapter folder to a GGUF adapter, in the form llama.cpp loads.

Each weight of the base that the adapter changes gives two tensors, NAME.lora_a (rank, inputs) and
NAME.lora_b (outputs, rank), ordered as the base's file orders the weight. Readers scale them by
adapter.lora.alpha / rank. What is no product of two such tensors is refused by name.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ggq import models
from ggq.converters.checkpoint.folder import read_json
from ggq.converters.checkpoint.peft import Delta, PeftAdapter, plain_name
from ggq.converters.checkpoint.repository import config_file
from ggq.converters.checkpoint.tensors import MadeTensor
from ggq.converters.checkpoint.transforms import TRANSFORMS
from ggq.converters.conversion import Conversion, Options
from ggq.converters.metadata import general
from ggq.errors import ModelError, UsageError, option, printable
from ggq.gguf import open_gguf, spec
from ggq.models.base import Architecture
from ggq.models.hparams import HParams
from ggq.models.table import Tensor
from ggq.quants.mixtures import MixtureOptions, Plan, file_type

__all__ = ["from_adapter"]

TYPES = ("F32", "F16", "BF16")
MERGE = "merge it into the base: ggq convert BASE --merge-lora"


@dataclass(frozen=True)
class _Place:
    """Where a weight of a checkpoint goes: the table's row, its layer, and the name in the file."""

    gguf: str
    row: Tensor
    layer: int | None
    alone: bool = True  # the file's tensor is made of this weight only


def from_adapter(
    folder: Path, wanted: str, options: Options, stack: contextlib.ExitStack
) -> Conversion:
    """Return the plan for an adapter folder whose base is ``options.base``; reads its weights.

    ``wanted``: F32, F16 or BF16. Raises GGQError naming the option, setting or tensor at fault.
    """
    assert options.base is not None
    _check_options(options)
    kind = file_type(wanted)
    if kind.name not in TYPES:
        what = f"{option('--type')} {kind.name}: an adapter is stored as {', '.join(TYPES)}"
        raise UsageError(what)
    arch, hp = _base(options.base, stack)
    adapter = PeftAdapter(folder)
    stack.callback(adapter.close)
    for name in adapter.whole:
        what = f"{adapter.where}: {printable(name)} is a whole weight, no product of two"
        raise ModelError(f"{what}: {MERGE}")
    places = _places(arch, hp)
    alpha = next(iter(adapter.deltas.values()))
    shared = alpha.scale * alpha.rank  # what readers multiply by, over each pair's own rank
    made = dict[str, MadeTensor]()
    for name, delta in adapter.deltas.items():
        for place in _where(places, name, adapter):
            for tensor in _pair(place, delta, shared, arch, hp, adapter):
                made[tensor.name] = tensor
    parts = general.model_parts(folder, {}, [(t.name, t.shape) for t in made.values()])
    items = [general.Item(spec.KEY_ARCHITECTURE, arch.name, spec.STR)]
    told: list[str] = []
    items += [i for i in general.general_items(folder, parts, told) if i.key != "general.type"]
    items.insert(1, general.Item("general.type", "adapter", spec.STR))
    items.insert(2, general.Item("adapter.type", "lora", spec.STR))
    items.append(general.Item("adapter.lora.alpha", shared, spec.F32))
    items.append(general.Item("general.file_type", kind.number, spec.U32))
    items.append(general.Item("general.quantization_version", 2, spec.U32))
    plan = Plan(kind, [(name, kind.name) for name in made])
    return Conversion(Path(), arch.name, hp, dict(made), plan, options, items, warnings=told)


def _check_options(options: Options) -> None:
    """Refuse what is asked for and no adapter's business; UsageError."""
    refused = {
        "--merge-lora": options.merge_lora,
        "--via": options.via,
        "--pre": options.pre,
        "--allow-requantize": options.allow_requantize,
        "--no-mtp": not options.mtp,
        "--provenance": options.provenance,
        "--pure, --tensor-type and the like": replace(options.mixture, imatrix=False)
        != MixtureOptions(),
        "--imatrix": options.mixture.imatrix,
    }
    for flag, given in refused.items():
        if given:
            raise UsageError(f"{option(flag)}: not for an adapter, whose tensors are kept")


def _base(
    given: str | os.PathLike[str], stack: contextlib.ExitStack
) -> tuple[Architecture, HParams]:
    """Return the model that an adapter belongs to: of a folder, a GGUF file or a repository."""
    path = Path(given)
    if path.is_file():
        file = stack.enter_context(open_gguf(path))
        name = file.get(spec.KEY_ARCHITECTURE, type=str)
        arch = models.get(str(name))
        return arch, arch.hparams(file)
    place = path / "config.json" if path.is_dir() else config_file(str(given))
    config = read_json(place, required=True)
    arch = models.for_hf(config)
    return arch, arch.hparams(config)


def _places(arch: Architecture, hp: HParams) -> dict[str, list[_Place]]:
    """Return by a checkpoint's plain names what is made of each weight."""
    found: dict[str, list[_Place]] = {}
    for gguf, row, layer in arch.rows(hp):
        forms = [(arch.sources(row, hp, layer), row)]
        if row.fused:
            fused, transform = row.fused[0].format(i=layer), row.fused[1]
            whole = replace(row, transform=transform)
            forms.append(([arch.placed(fused, hp, layer)], whole))
        for names, how in forms:
            for name in names:
                place = _Place(gguf, how, layer, len(names) == 1)
                found.setdefault(plain_name(name), []).append(place)
    return found


def _where(places: dict[str, list[_Place]], name: str, adapter: PeftAdapter) -> Iterator[_Place]:
    found = places.get(plain_name(name))
    if found is None:
        what = f"{adapter.where}: the base has no tensor {printable(name)}"
        raise ModelError(f"{what}: the adapter is another model's")
    yield from found


def _pair(
    place: _Place,
    delta: Delta,
    shared: float,
    arch: Architecture,
    hp: HParams,
    adapter: PeftAdapter,
) -> list[MadeTensor]:
    """Return both tensors of a pair, float32; ModelError where there are none."""
    where, row = f"{adapter.where}: {printable(delta.name)}", place.row
    shape = arch.shape(row, hp, place.layer)
    transform = TRANSFORMS[row.transform]
    plain = transform.values is None and (transform.bind is None or transform.transposes)
    if delta.form == "embedding" or row.role == "token_embd":
        raise ModelError(f"{where} is the token embedding, whose rows are looked up: {MERGE}")
    if len(shape) != 2 or not place.alone or not plain or row.factor:
        raise ModelError(f"{where} is part of {place.gguf}, which takes no two factors: {MERGE}")
    whole = transform.whole(hp, place.layer or 0) if transform.whole else shape[0]
    has, fits = (delta.b.shape[0], delta.a.shape[1]), (whole, shape[1])
    if has != fits:
        raise ModelError(f"{where} is {has} in the adapter, {fits} in the base: another model's")
    a, b = delta.a.read(slice(None)), delta.b.read(slice(None))
    if transform.rows:
        b = b[transform.rows(hp, place.layer or 0, shape[0])(np.arange(shape[0]))]
    if transform.columns:
        a = a[:, transform.columns(hp)(np.arange(shape[1]))]
    own = delta.scale * delta.rank / shared
    b = b if own == 1 else (b * np.float64(own)).astype(np.float32)
    names = f"{place.gguf}.lora_a", f"{place.gguf}.lora_b"
    return [MadeTensor(n, np.ascontiguousarray(x)) for n, x in zip(names, (a, b), strict=True)]
