"""Verifies a file against the source it is said to be made of: every tensor is derived again.

A tensor at a time, in slabs, through the encoder that conversions use; the first block that is
another ends it. Types are taken from the file, keys are compared with those that the source
decides. How bytes are made is known by conversions alone.
"""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ggq import quants
from ggq.converters.conversion import Conversion, Options, Progress
from ggq.converters.encode import encode_all
from ggq.converters.imatrix import Imatrix, read_imatrix
from ggq.converters.prepare import prepare
from ggq.converters.prepasses import recipe
from ggq.converters.provenance import is_ggqs, listed, read_provenance, recorded_options
from ggq.converters.report.card import Card, measured, read_card
from ggq.converters.verify_keys import compare_keys
from ggq.errors import FormatError, GGQError, UsageError, option, printable
from ggq.gguf import GGUFFile, TensorInfo, open_gguf, spec
from ggq.hub import file_sha256
from ggq.quants.mixtures import FILE_TYPES, PlanTensor, plan

__all__ = ["Settings", "Verdict", "verify"]

PREPASS, IMATRIX_FILE = "ggq.prepass.", "quantize.imatrix.file"


@dataclass(frozen=True)
class Settings:
    """What a verification may be given: the matrix and the text that the file was made with.

    ``via``, ``pre``: as they were given to the conversion, where no provenance tells it.
    ``card``: measure the file's card again, too.
    """

    imatrix: str | os.PathLike[str] | None = None
    calibration: str | os.PathLike[str] | None = None
    via: str | None = None
    pre: str | None = None
    threads: int | None = None
    weights_only: bool = False
    card: bool = False


@dataclass
class Verdict:
    """What was found, each as a line: ``differs``; ``unknown``: not derived again, and why."""

    n_tensors: int = 0
    n_same: int = 0
    n_keys: int = 0
    differs: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def is_verified(self) -> bool:
        """Whether everything that the source decides is as the source decides it."""
        return not self.differs and not self.unknown


def verify(
    path: str | os.PathLike[str],
    source: str | os.PathLike[str],
    settings: Settings = Settings(),
    progress: Progress | None = None,
) -> Verdict:
    """Derive the file ``path`` again from ``source``, a folder, repository or GGUF file.

    GGQError where one of them cannot be read or is no model.
    """
    verdict = Verdict()
    with open_gguf(path) as file, _prepared(file, source, settings) as job:
        card = _card(file) if settings.card else None
        verdict.n_tensors = len(file.tensors)
        verdict.differs += _padding(file)
        verdict.differs += _other_types(file, job)
        job.plan.types = [(n, t.type_name) for n, t in file.tensors.items() if n in job.tensors]
        types = listed(Counter(t.type_name for t in file.tensors.values()))
        job.items = [i._replace(value=types) if i.key == "ggq.types" else i for i in job.items]
        passes_doubt = _run_passes(file, job, settings)
        doubt = passes_doubt or _why_importance_is_unknown(file, job)  # a pass may measure it
        job.plan.types = _comparable(file, job, verdict, doubt)
        if not settings.weights_only:
            n, differs, notes = compare_keys(file, job, passes_ran=passes_doubt is None)
            verdict.n_keys = n
            verdict.differs += differs
            verdict.notes += notes
        _compare_tensors(file, job, verdict, doubt, progress)
        if card is not None:
            _compare_card(file, job, card, settings, verdict)
        file.check_unchanged()
    return verdict


def _card(file: GGUFFile) -> Card:
    found = read_card(file)
    if found is None:
        raise UsageError(f"{printable(file.path)}: no card in it to measure (ggq convert --card)")
    return found


def _compare_card(
    file: GGUFFile, job: Conversion, card: Card, settings: Settings, verdict: Verdict
) -> None:
    """Measure what the card tells on the windows that it was measured on."""
    source = job.copy_from.metadata if job.copy_from is not None else {}
    text = file.get(recipe.KEY, type=str)
    own = text is not None and source.get(recipe.KEY) != text
    passes = recipe.recipe_of(file).passes(settings.calibration) if own else []
    again, _ = measured(job, file.path, passes)
    if difference := again.difference(card):
        verdict.differs.append(f"card: {difference}")
    else:
        verdict.notes.append(f"card measured again: {again}")


@contextmanager
def _prepared(
    file: GGUFFile, source: str | os.PathLike[str], settings: Settings
) -> Iterator[Conversion]:
    """Yield the conversion as it was once planned; what it would write goes nowhere."""
    told = read_provenance(file)
    options = recorded_options(told.get("options", {})) if told else Options()
    via = settings.via or options.via or file.get("ggq.via", type=str)
    options = replace(
        options,
        allow_requantize=True,
        threads=settings.threads,
        provenance=told is not None and not settings.weights_only,
        via="f16" if via == "f16" else None,
        pre=settings.pre or options.pre,
        check_tokenizer=False,
        mtp=any(key.endswith(".nextn_predict_layers") for key in file.metadata),
    )
    matrix = _matrix(file, settings, (told or {}).get("imatrix", {}).get("sha256"))
    kind = _file_type(file)
    with tempfile.TemporaryDirectory(prefix="ggq-verify-") as folder:
        out = Path(folder) / "again.gguf"
        with prepare(source, out, kind, matrix, options) as job:
            yield job


def _file_type(file: GGUFFile) -> str:
    number = file.get(spec.KEY_FILE_TYPE, type=int)
    name = spec.FILE_TYPES.get(number, "")
    return name if name in FILE_TYPES else "F32"


def _matrix(file: GGUFFile, settings: Settings, sha256: str | None) -> Imatrix | None:
    """Return the importance given, or the recorded one where it still lies there; UsageError."""
    recorded = file.get(IMATRIX_FILE, type=str)
    path = settings.imatrix
    if path is None and recorded is not None and Path(recorded).is_file():
        if sha256 is not None and file_sha256(Path(recorded)) != sha256:
            return None
        path = recorded
    if path is None:
        return None
    if sha256 is not None and Path(path).is_file() and file_sha256(Path(path)) != sha256:
        what = f"{option('--imatrix')} {printable(path)}: is not the matrix that"
        raise UsageError(f"{what} {printable(file.path)} was made with (SHA-256 {sha256[:16]}...)")
    return read_imatrix(path)


def _why_importance_is_unknown(file: GGUFFile, job: Conversion) -> str | None:
    """Return why tensors cannot be derived without the matrix, None where there is no such need."""
    recorded = file.get(IMATRIX_FILE, None)
    copied = job.copy_from is not None and job.copy_from.metadata.get(IMATRIX_FILE) == recorded
    if job.imatrix is not None or recorded is None or copied:
        return None
    return f"the importance matrix {printable(recorded)} is not here: {option('--imatrix')}"


def _padding(file: GGUFFile) -> list[str]:
    """Return what stands where only zeros do: between header, tensors and the end of a file."""
    for shard in file.shards:
        end = shard.header.end
        starts = [(t.offset, t.offset + t.nbytes) for t in shard.header.tensors]
        for start, stop in [*sorted(starts), (shard.size, shard.size)]:
            if start < end or shard.data[end:start].any():
                return [f"{printable(shard.path)}: bytes {end} to {start} are no padding"]
            end = stop
    return []


def _other_types(file: GGUFFile, job: Conversion) -> list[str]:
    """Return a line where the file's types are those of another file type than it says."""
    found = {name: t.type_name for name, t in file.tensors.items()}
    planned = dict(job.plan.types)
    common = [n for n in planned if n in found]
    other = [n for n in common if planned[n] != found[n]]
    if not other:
        return []
    name, said = other[0], job.plan.file_type.name
    if read_provenance(file):  # its options say which types were asked for
        what = f"tensor {printable(name)} is {found[name]}, {said} with the recorded options"
        return [f"{what} makes it {planned[name]}"]
    roles = job.roles
    given = [PlanTensor(n, t.shape, t.type_name, roles.get(n)) for n, t in job.original.items()]
    for kind in FILE_TYPES:
        try:
            types = dict(plan(given, job.hparams, kind, job.options.mixture).types)
        except GGQError:  # not for this model
            continue
        if all(types[n] == found[n] for n in common):
            return [f"key {spec.KEY_FILE_TYPE} says {said}, the tensors' types are those of {kind}"]
    return []  # chosen one by one


def _comparable(
    file: GGUFFile, job: Conversion, verdict: Verdict, doubt: str | None
) -> list[tuple[str, str]]:
    """Return (name, type) of the tensors to derive in file order; tell of all others."""
    known = {kind.name: kind for kind in quants.all()}
    for name in job.tensors:
        if name not in file.tensors:
            verdict.differs.append(f"tensor {printable(name)} of the source is missing")
    chosen = []
    for name, info in file.tensors.items():
        kind, source = known.get(info.type_name), job.tensors.get(name)
        if source is None:
            verdict.differs.append(f"tensor {printable(name)} is none that the source gives")
        elif tuple(source.shape) != info.shape:
            what = f"tensor {printable(name)} has shape {info.shape}"
            verdict.differs.append(f"{what}, the source gives {tuple(source.shape)}")
        elif kind is None and source.type_name != info.type_name:
            verdict.unknown.append(f"tensor {printable(name)}: ggq does not write {info.type_name}")
        elif kind is not None and _lacks_importance(name, info.type_name, job):
            why = f"{info.type_name} is not made without importance: {option('--imatrix')}"
            verdict.unknown.append(f"tensor {printable(name)}: {doubt or why}")
        else:
            chosen.append((name, info.type_name))
    return chosen


def _lacks_importance(name: str, type_name: str, job: Conversion) -> bool:
    same = job.tensors[name].type_name == type_name
    measured = job.imatrix is not None and name in job.imatrix.values
    return quants.get(type_name).needs_importance and not same and not measured


def _run_passes(file: GGUFFile, job: Conversion, settings: Settings) -> str | None:
    """Run the passes of the file's recipe on ``job``; return why the weights stay in doubt."""
    text = file.get(recipe.KEY, type=str)
    source = job.copy_from.metadata if job.copy_from is not None else {}
    notes = [k for k in file.metadata if k.startswith(PREPASS) and k not in source]
    if text is None and notes:
        return f"{printable(notes[0].removeprefix(PREPASS))} ran, and no recipe says with what else"
    if text is None or source.get(recipe.KEY) == text:  # none ran, or before the source was made
        return None
    try:
        known = recipe.recipe_of(file)
        recipe.run_passes(job, known.passes(settings.calibration))
    except (UsageError, FormatError) as error:
        return f"the passes cannot run again: {printable(error, 400)}"
    return None


def _compare_tensors(
    file: GGUFFile,
    job: Conversion,
    verdict: Verdict,
    doubt: str | None,
    progress: Progress | None,
) -> None:
    """Derive and compare; with a ``doubt`` what differs is not known to be wrong."""
    found = _comparison(file, job, doubt is not None, progress)
    by_others = doubt is None and not is_ggqs(file)
    if found.first and by_others and job.options.via is None:
        job.options = replace(job.options, via="f16")
        again = _comparison(file, job, False, progress)
        if not again.first or again.reached > found.reached:  # that is how it was made
            found = again
            how = "by way of F16, as llama-quantize makes it of an F16 file"
            verdict.notes.append(f"{len(found.same)} tensors are as the source gives them {how}")
    verdict.n_same = len(found.same)
    if doubt is None:
        verdict.differs += found.first
    elif found.first:
        n = len(found.differing)
        what = f"{n} tensors, such as {printable(found.differing[0])}, cannot be derived again"
        verdict.unknown.append(f"{what}: {doubt}")


class _Enough(Exception):
    """A difference was found: nothing more is to be derived."""


def _comparison(
    file: GGUFFile, job: Conversion, go_on: bool, progress: Progress | None
) -> _Comparison:
    """Encode every planned tensor and compare it, up to the first difference or all."""
    tasks = [job.encode_task(name, kind) for name, kind in job.plan.types]
    total, done = sum(file.tensors[name].n_elements for name, _ in job.plan.types), 0

    def advance(name: str, elements: int) -> None:
        nonlocal done
        done += elements
        if progress:
            progress(done, total, name)

    found = _Comparison(file, go_on)
    with suppress(_Enough):
        encode_all(tasks, found.write, job.imatrix, job.options.threads, advance)
    return found


class _Comparison:
    """Takes slabs as a writer does; ``first``: the first difference as a line, if any."""

    def __init__(self, file: GGUFFile, go_on: bool) -> None:
        self.same: list[str] = []
        self.differing: list[str] = []
        self.first: list[str] = []
        self.reached = (0, 0, 0)  # tensors, rows and bytes before the first difference
        self._file, self._go_on = file, go_on
        self._row = 0  # of the tensor that is being written

    def write(self, name: str, blocks: np.ndarray) -> None:
        info, start = self._file.tensors[name], self._row
        stored = self._file.data(name)[start : start + len(blocks)]
        if not np.array_equal(stored, blocks) and self.differing[-1:] != [name]:
            self.differing.append(name)
            if not self.first:
                row, at = (int(i[0]) for i in np.nonzero(stored != blocks))
                self.reached = len(self.same), start + row, at
                both = int(stored[row, at]), int(blocks[row, at])
                self.first.append(_difference(info, start + row, at, both))
            if not self._go_on:
                raise _Enough
        self._row += len(blocks)
        if self._row == info.n_rows:
            self._row = 0
            self._file.release(name)
            if self.differing[-1:] != [name]:
                self.same.append(name)


def _difference(info: TensorInfo, row: int, at: int, both: tuple[int, int]) -> str:
    """Return where the first block that differs is, and the bytes on both sides."""
    kind = spec.TYPES[info.type_id]
    block, weights = at // kind.block_bytes, kind.block_size
    span = f"element {block}"
    if weights > 1:
        span = f"block {block} (elements {block * weights} to {(block + 1) * weights - 1})"
    where = f"tensor {printable(info.name)} ({info.type_name}), row {row}, {span}"
    found = f"byte {at % kind.block_bytes} is 0x{both[0]:02x}"
    return f"{where}: {found}, the source gives 0x{both[1]:02x}"
