"""Plans a conversion from headers alone: tensors, their types, keys, the name of the file.

Nothing is written here and no weights are read. How blocks are made, what an architecture is and
how files are laid out is known elsewhere.
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ggq
from ggq import models, quants
from ggq.arguments import checked
from ggq.converters.adapter import from_adapter
from ggq.converters.checkpoint import grid, refusals
from ggq.converters.checkpoint.folder import Checkpoint
from ggq.converters.checkpoint.merging import merge
from ggq.converters.checkpoint.modules import RERANK_TEMPLATE
from ggq.converters.checkpoint.peft import PeftAdapter
from ggq.converters.checkpoint.repository import fetch, outline
from ggq.converters.checkpoint.tensors import (
    HFTensor,
    SourceTensor,
    gguf_tensors,
    hf_tensors,
    in_own_blocks,
    own_blocks,
)
from ggq.converters.conversion import Conversion, Options
from ggq.converters.imatrix import Imatrix, read_imatrix
from ggq.converters.metadata import general
from ggq.converters.metadata.names import NameParts, file_name, model_id
from ggq.converters.projector import from_vision, left_out
from ggq.converters.provenance import listed, provenance_item
from ggq.converters.vocab.read import read_vocab
from ggq.errors import ModelError, UsageError, option, printable
from ggq.gguf import GGUFFile, open_gguf, spec
from ggq.models.base import Architecture
from ggq.models.hparams import HParams
from ggq.models.layers import rope
from ggq.models.layers.next_n import FOUND
from ggq.models.pooled import ANSWERS
from ggq.models.unknown import unknown_warnings
from ggq.outputs import not_of
from ggq.quants.mixtures import FILE_TYPES, UNQUANTIZED, Plan, PlanTensor, file_type, plan

__all__ = ["MMPROJ", "prepare"]

RERANK_KEY = "tokenizer.chat_template.rerank"  # as llama-server looks for it
VALUE_TYPES = {
    "u32": spec.U32,
    "f32": spec.F32,
    "real": spec.F32,
    "bool": spec.BOOL,
    "str": spec.STR,
}
PREFIX = "ggq"  # of the provenance keys
MMPROJ = "mmproj-"  # what the names of projector files begin with


@checked
def prepare(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    type: str = "Q4_K_M",
    imatrix: Imatrix | str | os.PathLike[str] | None = None,
    options: Options | None = None,
) -> Conversion:
    """Open ``source`` and plan its conversion: keys, types, exact sizes; reads no weights."""
    options = options or Options()
    if options.via not in (None, "f16"):
        raise UsageError(f"{option('--via')} {printable(options.via)}: only f16 is known")
    if imatrix is not None and not isinstance(imatrix, Imatrix):
        imatrix = read_imatrix(imatrix)
    options = replace(options, mixture=replace(options.mixture, imatrix=imatrix is not None))
    path = Path(source)
    with contextlib.ExitStack() as stack:
        if not path.exists():
            name = str(source)
            path = stack.enter_context(outline(name)) if options.outline else fetch(name)
        if path.is_file() and (why := refusals.not_a_model(path)) is not None:
            raise UsageError(why)
        build = _builder(path, options)
        job = build(path, file_type(type).name, options, stack)
        job.imatrix, job.original = imatrix, dict(job.tensors)
        job.items += _imatrix_items(imatrix) + _provenance(job, path)
        if options.provenance:
            job.items.append(provenance_item(job, path))
        job.out = _out_path(job, path, out)
        job.warnings += _importance_notes(job)
        job.close = stack.pop_all().close
    return job


def _builder(path: Path, options: Options) -> Callable[..., Conversion]:
    """Return what plans the conversion of a source of its kind; UsageError: an option of others."""
    adapter = path.is_dir() and refusals.is_adapter(path)
    if adapter and options.base is not None:
        return from_adapter
    if options.base is not None:
        what = f"{option('--base')}: {printable(path)} is no adapter folder (adapter_config.json)"
        raise UsageError(what)
    if path.is_dir():
        return from_vision if options.mmproj else _from_folder
    if options.mmproj:
        what = f"{printable(path)} is a GGUF file: the vision part lies in the Hugging Face folder"
        raise UsageError(f"{option('--only-mmproj', 'only_mmproj')}: {what}")
    if options.merge_lora:
        what = "adapters are merged into a Hugging Face model, not into a GGUF file"
        raise UsageError(f"{option('--merge-lora')}: {what}")
    return _from_gguf


def _from_folder(
    folder: Path, wanted: str, options: Options, stack: contextlib.ExitStack
) -> Conversion:
    checkpoint = Checkpoint(folder, models.for_hf)
    stack.callback(checkpoint.close)
    _merge(checkpoint, options, stack)
    checkpoint.tensors = grid.on_grid(checkpoint.tensors)
    arch = models.for_hf(checkpoint.config)
    dropped = _settle_heads(checkpoint, arch, options)
    hp = arch.hparams(checkpoint.config)
    tensors, skipped = hf_tensors(checkpoint, arch, hp)
    roles = arch.roles(hp)
    plan_of = [PlanTensor(t.name, t.shape, _kept_type(t, options), roles[t.name]) for t in tensors]
    made = plan(plan_of, hp, wanted, options.mixture)
    shapes = [(t.name, t.shape) for t in tensors]
    parts = general.model_parts(folder, checkpoint.config, shapes)
    items = [general.Item(spec.KEY_ARCHITECTURE, arch.name, spec.STR)]
    items += general.general_items(folder, parts, checkpoint.warnings)
    items += _arch_items(arch, checkpoint.config)
    items += _prompt_items(checkpoint)
    if options.merge_lora:
        names = [Path(folder).resolve().name for folder in options.merge_lora]
        items.append(general.Item(f"{PREFIX}.merged_lora", names, spec.STR))
    vocab = read_vocab(folder, hp.n_vocab, arch.name, options.pre, options.check_tokenizer)
    items += [general.Item(item.key, item.value, item.type) for item in vocab]
    items.append(general.Item("general.file_type", made.file_type.number, spec.U32))
    items.append(general.Item("general.quantization_version", 2, spec.U32))
    if checkpoint.quantization:
        key = f"{PREFIX}.source_quantization"
        items.append(general.Item(key, checkpoint.quantization, spec.STR))
    by_name = {t.name: t for t in tensors}
    notes = _keep_codes(by_name, made) + _peer_notes(arch, by_name)
    notes += grid.notes(by_name, dict(made.types), made.file_type.name)
    notes += _head_notes(checkpoint.config, arch, hp, by_name)
    if checkpoint.quantization:
        notes += _quantized_twice(by_name, made, checkpoint.quantization)
    found = Conversion(Path(), arch.name, hp, by_name, made, options, items)
    found.roles, found.skipped = roles, [*skipped, *dropped]
    found.warnings = [*checkpoint.warnings, *vocab.warnings, *notes]
    found.warnings += left_out(checkpoint, bool(options.beside))
    return found


def _merge(checkpoint: Checkpoint, options: Options, stack: contextlib.ExitStack) -> None:
    adapters = [PeftAdapter(Path(folder)) for folder in options.merge_lora]
    for adapter in adapters:
        stack.callback(adapter.close)
    merge(checkpoint, adapters)


def _settle_heads(checkpoint: Checkpoint, arch: Architecture, options: Options) -> list[str]:
    """Note in the config how many heads are converted; return the names of what is left out."""
    config, dropped = checkpoint.config, list[str]()
    found = arch.count_heads(config, checkpoint.tensors)
    if found and options.mtp:
        checkpoint.config = {**config, FOUND: found}
    elif found:
        dropped = [n for n in checkpoint.tensors if arch.of_head(config, n)]
        checkpoint.tensors = {n: t for n, t in checkpoint.tensors.items() if n not in set(dropped)}
    return dropped


def _head_notes(
    config: Any, arch: Architecture, hp: HParams, tensors: dict[str, SourceTensor]
) -> list[str]:
    """Return a note where config.json and the checkpoint disagree on a head of its own."""
    said = {**config, **(config.get("text_config") or {})}.get("tie_word_embeddings")
    own = any(row.gguf == "output.weight" for row in arch.tensors) and hp.readout.output_head
    if not own or hp.readout.labels or hp.readout.answers or said is None:
        return []
    if said and "output.weight" in tensors:
        what = "the checkpoint's own head is used as it is stored, as in transformers 5"
    elif said is False and "output.weight" not in tensors:
        what = "the checkpoint has no head of its own: the embedding is used for it"
    else:
        return []
    return [f"tie_word_embeddings is {str(bool(said)).lower()}, and {what}"]


def _peer_notes(arch: Architecture, tensors: dict[str, SourceTensor]) -> list[str]:
    """Return a note for what ggq follows and llama.cpp does not load."""
    turned = [n for n in rope.ALL_FACTORS if n in tensors and n not in arch.peer_factors]
    others = [n for n in tensors if n.endswith(arch.peer_lacks)] if arch.peer_lacks else []
    notes = [f"the rotation is stored in {turned[0]}"] if turned else []
    notes += [f"{others[0]} is in the file"] if others else []
    lacks = f"llama.cpp knows no such tensor of {arch.name} and does not load the file"
    return [f"{note}, which ggq follows; {lacks}" for note in notes]


def _keep_codes(tensors: dict[str, SourceTensor], made: Plan) -> list[str]:
    """Let tensors whose codes fit the blocks planned for them be written so; return notes."""
    kept = 0
    rounded: str | None = None
    for name, type_name in made.types:
        own = in_own_blocks(tensors[name], type_name)
        if own is not tensors[name]:
            tensors[name] = own
            kept += 1
            if rounded is None and isinstance(own, HFTensor) and own.rounds(type_name):
                rounded = f"{name} in {type_name}"
    if rounded is None:
        return []
    what = "scales or minimums are no half-precision numbers and are rounded to them"
    return [f"the checkpoint's codes of {kept} tensors are kept as they are; {what}: {rounded}"]


def _quantized_twice(tensors: dict[str, SourceTensor], made: Plan, method: str) -> list[str]:
    """Return a note where all of the checkpoint's codes are lost, and the type that keeps them."""
    chosen = [(n, t) for n, t in made.types if t not in UNQUANTIZED]
    if any(tensors[n].type_name == t for n, t in chosen):
        return []
    keeping = (t for n, _ in chosen for t in own_blocks(tensors[n]) if t in FILE_TYPES)
    best = next(keeping, None)
    what = f"the weights are quantized already ({method}), {made.file_type.name} does it once more"
    return [f"{what}; {option('--type')} {best} keeps their codes"] if best else []


def _kept_type(tensor: SourceTensor, options: Options) -> str:
    """Return the type a tensor keeps where the mixture does not choose: its own, or F16."""
    return "F16" if options.via == "f16" and tensor.type_name != "F32" else tensor.type_name


def _arch_items(arch: Architecture, config: Any) -> list[general.Item]:
    found = []
    for key, value, kind in arch.metadata(config):
        # a number of bools stands for all but every n-th: it is stored as the number
        counts = kind == "bools" and isinstance(value, int) and not isinstance(value, bool)
        base = spec.U32 if counts else VALUE_TYPES[kind.removesuffix("s")]
        found.append(general.Item(key, list(value) if isinstance(value, tuple) else value, base))
    return found


def _prompt_items(checkpoint: Checkpoint) -> list[general.Item]:
    """Return the texts that go before queries and documents, as keys: no other program has some."""
    said = checkpoint.prompts.items()
    items = [general.Item(f"{PREFIX}.prompt.{name}", text, spec.STR) for name, text in said]
    if checkpoint.config.get(ANSWERS):
        items.append(general.Item(RERANK_KEY, RERANK_TEMPLATE, spec.STR))
    return items


def _from_gguf(
    path: Path, wanted: str, options: Options, stack: contextlib.ExitStack
) -> Conversion:
    if options.pre is not None:
        what = "a GGUF file says its pre-tokenizer; ggq set-metadata changes it"
        raise UsageError(f"{option('--pre')} {printable(options.pre)}: {what}")
    file = stack.enter_context(open_gguf(path))
    tensors = gguf_tensors(file)
    facts = _facts(file)
    arch, hp = _known(file, facts.arch)
    roles = arch.roles(hp) if arch and hp else {}
    plan_of = [PlanTensor(t.name, t.shape, t.type_name, roles.get(t.name)) for t in tensors]
    made = plan(plan_of, facts, wanted, options.mixture)
    by_name = {t.name: t for t in tensors}
    _refuse_other_numbers(by_name, made)
    if not options.allow_requantize:
        _refuse_requantizing(by_name, made)
    items = [general.Item("general.quantization_version", 2, spec.U32)]
    items.append(general.Item("general.file_type", made.file_type.number, spec.U32))
    found = Conversion(Path(), facts.arch, facts, by_name, made, options, items)
    found.copy_from, found.roles = file, roles
    found.warnings = unknown_warnings(file, arch, hp, "carried over")
    return found


def _known(file: GGUFFile, name: str) -> tuple[Architecture, HParams] | tuple[None, None]:
    """Return a file's architecture and hyper-parameters; files of others can be quantized, too."""
    try:
        arch = models.get(name)
        return arch, arch.hparams(file)
    except ModelError:
        return None, None


def _refuse_other_numbers(tensors: dict[str, SourceTensor], made: Plan) -> None:
    """Refuse weights of types that no model here computes with, such as F64 and I32."""
    known = {kind.name for kind in quants.all()}
    for name, new in made.types:
        old = tensors[name].type_name
        if old not in known and (old != new or name.endswith((".weight", ".bias"))):
            what = f"tensor {printable(name)} holds {printable(old)}, which is no type of weights"
            raise ModelError(f"{what}: floats up to F32 and blocks are")


def _refuse_requantizing(tensors: dict[str, SourceTensor], made: Plan) -> None:
    for name, new in made.types:
        old = tensors[name].type_name
        if old != new and old not in UNQUANTIZED:
            what = f"tensor {printable(name)} is already {old}; converting it again to {new}"
            allow = option("--allow-requantize", "allow_requantize=True")
            raise UsageError(f"{what} loses quality, {allow} does it anyway")


def _facts(file: GGUFFile) -> Any:
    """Return what the mixture's rules ask of a model, for any architecture with the usual keys."""
    arch = file.get(spec.KEY_ARCHITECTURE, type=str)
    if arch is None:
        raise ModelError(f"{printable(file.path)}: no key {spec.KEY_ARCHITECTURE}")

    def number(key: str) -> int:
        value = file.metadata.get(f"{arch}.{key}", 0)
        first = value[0] if hasattr(value, "__len__") and len(value) else value
        if not isinstance(first, int) and not hasattr(first, "item"):
            raise ModelError(f"{arch}.{key} is {printable(repr(value))}, expected a number")
        return int(first)

    return SimpleNamespace(
        arch=arch,
        n_block=number("block_count"),
        n_head=number("attention.head_count"),
        n_head_kv=number("attention.head_count_kv") or number("attention.head_count"),
        n_expert=number("expert_count"),
    )


def _imatrix_items(imatrix: Imatrix | None) -> list[general.Item]:
    if imatrix is None:
        return []
    items = [general.Item("quantize.imatrix.file", imatrix.path, spec.STR)] if imatrix.path else []
    if imatrix.dataset:
        items.append(general.Item("quantize.imatrix.dataset", imatrix.dataset, spec.STR))
    items.append(general.Item("quantize.imatrix.entries_count", len(imatrix.values), spec.U32))
    if imatrix.chunks:
        items.append(general.Item("quantize.imatrix.chunks_count", imatrix.chunks, spec.U32))
    return items


def _provenance(job: Conversion, path: Path) -> list[general.Item]:
    """Return the keys that say what this file was made from, by which version, into which types."""
    counts = Counter(t for _, t in job.plan.types)
    values = {
        "version": ggq.__version__,
        "source": model_id(path),
        "source_types": listed(Counter(t.type_name for t in job.tensors.values())),
        "types": listed(counts),
    }
    if job.options.via:
        values["via"] = job.options.via
    return [general.Item(f"{PREFIX}.{k}", v, spec.STR) for k, v in values.items()]


def _out_path(job: Conversion, source: Path, out: str | os.PathLike[str] | None) -> Path:
    """Return the file to write: ``out``, or a name by convention in ``out`` or this folder."""
    if out is not None and not Path(out).is_dir():
        return not_of(Path(out), source)
    keys = {i.key: i.value for i in job.items}
    if job.copy_from is not None:
        old = job.copy_from.metadata
        keys = {k: old[k] for k in old if k.startswith("general.")} | keys
    text = {k: v for k, v in keys.items() if isinstance(v, str)}
    names = ("name", "basename", "finetune", "version", "size_label")
    parts = NameParts(**{n: text.get(f"general.{n}") for n in names})
    if parts.name is None and parts.basename is None:
        parts = replace(parts, name=source.stem)
    prefix = MMPROJ if job.options.mmproj else ""
    return Path(out or ".") / (prefix + file_name(parts, job.plan.file_type.name))


def _importance_notes(job: Conversion) -> list[str]:
    """Return what the matrix did not measure; FormatError where it does not fit the tensors."""
    if job.imatrix is None:
        return []
    chosen = [name for name, kind in job.plan.types if kind not in UNQUANTIZED]
    experts = {n: job.imatrix.unmeasured_experts(n, job.tensors[n].shape) for n in chosen}
    partly = [n for n, count in experts.items() if count]
    notes, where = [], "importance matrix: zeros mean not measured"
    if gone := [n for n in job.imatrix.unmeasured if n in chosen]:
        what = f"{len(gone)} tensors, such as {printable(gone[0])}, are taken as without importance"
        notes.append(f"{where}: {what}")
    if partly:
        total = sum(experts.values())
        what = f"columns count alike in {total} experts, such as one of {printable(partly[0])}"
        notes.append(f"{where}: {what}")
    return notes
