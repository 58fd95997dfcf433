"""A planned conversion: what will be written, of which tensors, in which types; and its writing.

`ggq.converters.prepare` makes one, pre-passes may alter it, `Conversion.run` writes the file;
nothing is on disk before.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

from ggq.arguments import check_fields
from ggq.converters.checkpoint.tensors import SourceTensor, in_own_blocks
from ggq.converters.encode import EncodeTask, encode_all
from ggq.converters.grids import Inputs
from ggq.converters.imatrix import Imatrix
from ggq.converters.metadata import general
from ggq.errors import UsageError, option, printable
from ggq.gguf import GGUFFile, GGUFWriter, spec
from ggq.gguf.encode import encode_header
from ggq.gguf.leftovers import take_name
from ggq.quants.mixtures import MixtureOptions, Plan

__all__ = ["CARD_KEYS", "Conversion", "Options", "Progress", "Summary"]

CARD_KEYS = tuple(
    f"ggq.quality.{name}"
    for name in ("kld", "kld_99", "kld_99_9", "same_top", "ppl_ratio", "positions", "held_back")
)
# A source's own making and measure are not those of what it becomes.
OF_THE_SOURCE = frozenset({"ggq.provenance", *CARD_KEYS})
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Options:
    """How to convert; ``via``: "f16" rounds weights to F16 first; ``threads`` None: all cores."""

    mixture: MixtureOptions = field(default_factory=MixtureOptions)
    via: str | None = None
    allow_requantize: bool = False
    force: bool = False
    threads: int | None = None
    split_max_bytes: int | None = None
    provenance: bool = False  # write where the weights came from, with SHA-256 of all files
    pre: str | None = None  # the pre-tokenizer, where its own is not recognised
    check_tokenizer: bool = True  # against the folder's own; a dry run has no time for it
    mtp: bool = True  # keep the heads that predict further tokens
    outline: bool = False  # of a repository the headers do: nothing will be written
    merge_lora: Sequence[str | os.PathLike[str]] = ()  # adapter folders to add to the weights
    base: str | os.PathLike[str] | None = None  # the model that an adapter belongs to
    mmproj: bool = False  # convert the vision part, not the text model
    beside: bool = False  # the vision part is converted, too: into a file beside this one
    group_size: int | None = None  # of the grids of serving engines; None: by the type
    ignore: Sequence[str] = ()  # expressions: modules that such a folder keeps as they are

    def __post_init__(self) -> None:
        check_fields(self)
        if self.threads is not None and not 1 <= self.threads <= 1024:
            raise UsageError(f"threads must be in 1..1024, not {self.threads}")
        if self.split_max_bytes is not None and self.split_max_bytes < 1:
            raise UsageError(f"'{self.split_max_bytes}': a size is one byte at least")


@dataclass(frozen=True)
class Summary:
    """What a conversion writes. ``shards``: files and their bytes; ``tensors``: name -> type.

    ``fallbacks``: (tensor, type wanted, type used) where rows are no multiple of the block.
    """

    type: str
    architecture: str
    shards: tuple[tuple[Path, int], ...]
    n_weights: int
    tensors: dict[str, str]
    fallbacks: tuple[tuple[str, str, str], ...]

    @property
    def nbytes(self) -> int:
        """Bytes of all files."""
        return sum(nbytes for _, nbytes in self.shards)

    @property
    def bits_per_weight(self) -> float:
        """Bits a weight, everything in the files counted."""
        return 8 * self.nbytes / self.n_weights

    @property
    def types(self) -> dict[str, int]:
        """How many tensors each type has, the most frequent first."""
        return dict(Counter(self.tensors.values()).most_common())

    def as_dict(self) -> dict[str, Any]:
        """Return what ``--json`` prints."""
        return {
            "type": self.type,
            "architecture": self.architecture,
            "bytes": self.nbytes,
            "shards": [{"path": str(path), "bytes": nbytes} for path, nbytes in self.shards],
            "weights": self.n_weights,
            "tensors": self.tensors,
            "fallbacks": [{"tensor": n, "wanted": w, "used": u} for n, w, u in self.fallbacks],
        }


@dataclass
class Conversion:
    """A conversion ready to run; a pre-pass may replace ``tensors`` and ``imatrix`` before."""

    out: Path
    arch: str
    hparams: Any
    tensors: dict[str, SourceTensor]
    plan: Plan
    options: Options
    items: list[general.Item] = field(default_factory=list)
    copy_from: GGUFFile | None = None
    imatrix: Imatrix | None = None
    roles: dict[str, str] = field(default_factory=dict)  # tensors', where a table says them
    skipped: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    close: Callable[[], None] = lambda: None
    original: dict[str, SourceTensor] = field(default_factory=dict)  # before any pre-pass
    inputs: Inputs = field(default_factory=Inputs)  # how the engine rounds activations
    peaks: dict[str, float] = field(default_factory=dict)  # of the activations that enter a tensor
    on_written: list[Callable[[], None]] = field(default_factory=list)  # when the file is complete

    def __enter__(self) -> Conversion:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def n_elements(self) -> int:
        """Weights in all tensors."""
        return sum(prod(t.shape) for t in self.tensors.values())

    @property
    def split_bytes(self) -> int | None:
        """The most bytes of a file of the output; None: it is one file."""
        return self.options.split_max_bytes

    @property
    def lacking_importance(self) -> list[str]:
        """Return the tensors that would be garbage: of types that need importance, without it."""
        planned, have = dict(self.plan.types), self.imatrix.values if self.imatrix else {}
        return [
            name
            for name in self.plan.need_imatrix
            if name not in have and self.tensors[name].type_name != planned[name]
        ]

    def summary(self) -> Summary:
        """Return what will be written, with the exact sizes of the files; nothing is on disk."""
        return Summary(
            type=self.plan.file_type.name,
            architecture=self.arch,
            shards=tuple((shard.path, shard.nbytes) for shard in self.writer().plan()),
            n_weights=self.n_elements,
            tensors=dict(self.plan.types),
            fallbacks=tuple(self.plan.fallbacks),
        )

    def check(self) -> None:
        """Refuse before any work a file that could not be written; UsageError."""
        self.writer().check()

    def check_target(self) -> None:
        """Refuse an output that parts of it could not be put in the place of; UsageError."""

    def writer(self, folder: Path | None = None) -> GGUFWriter:
        """Return a writer with all keys and tensors declared; nothing is on disk yet.

        ``folder``: where it writes, over what is there, instead of to the output's place.
        """
        path, force = self.out, self.options.force
        if folder is not None:
            path, force = folder / path.name, True
        writer = GGUFWriter(path, force, self.split_bytes)
        if self.copy_from is not None:
            writer.copy_metadata(self.copy_from.metadata, OF_THE_SOURCE)
        for item in self.items:
            writer.add(item.key, item.value, item.type)
        for name, type_name in self.plan.types:
            writer.add_tensor(name, self.tensors[name].shape, spec.TYPE_IDS[type_name])
        return writer

    def run(self, progress: Progress | None = None) -> list[Path]:
        """Encode and write; return the files. ``progress(elements done, in all, tensor name)``."""
        self.check_complete()
        paths = self._write(self.writer(), None, progress)
        self.forget()
        return paths

    def described(self) -> bytes:
        """Return what the files will say of themselves: keys, names, shapes, types."""
        return b"".join(encode_header(p.keys, p.tensors) for p in self.writer().plan())

    def make_part(self, index: int, folder: Path, progress: Progress | None = None) -> None:
        """Encode file ``index`` of `summary`'s shards alone, into ``folder``; whole or not at all.

        It needs the source and this plan, nothing of the other parts: any machine can do it.
        """
        self.check_complete()
        self._write(self.writer(folder), index, progress)

    def put_together(self, folder: Path) -> list[Path]:
        """Give the parts in ``folder`` their final names, the first, which is opened, last."""
        finals = [self.out.with_name(plan.path.name) for plan in self.writer(folder).plan()]
        if self.options.force and len(finals) > 1:
            finals[0].unlink(missing_ok=True)  # of an older model, whose other files go now
        for final in reversed(finals):
            take_name(folder / final.name, final, self.options.force)
        self.forget()
        return finals

    def check_complete(self) -> None:
        """Refuse what cannot be encoded: an outline, importance that is lacking; UsageError."""
        if self.options.outline:
            raise UsageError("an outline has no weights to write")
        if lacking := self.lacking_importance:  # a pre-pass may have measured it
            what = f"{self.plan.file_type.name} needs an importance matrix"
            where = f"{printable(lacking[0])} in {dict(self.plan.types)[lacking[0]]}"
            raise UsageError(f"{what} ({option('--imatrix')}) for {where}")

    def forget(self) -> None:
        """Let what passes kept for a run that is stopped be removed: the output is complete."""
        for forget in self.on_written:
            forget()

    def _write(self, writer: GGUFWriter, part: int | None, progress: Progress | None) -> list[Path]:
        plans, types = writer.plan(), dict(self.plan.types)
        names = [t.name for p in (plans if part is None else [plans[part]]) for t in p.tensors]
        total, done = sum(prod(self.tensors[n].shape) for n in names), 0

        def advance(name: str, elements: int) -> None:
            nonlocal done
            done += elements
            if progress:
                progress(done, total, name)

        tasks = [self.encode_task(name, types[name]) for name in names]
        writer.begin(part)
        try:
            encode_all(tasks, writer.write, self.imatrix, self.options.threads, advance)
            return writer.finish()
        except BaseException:
            writer.abort()
            raise

    def encode_task(self, name: str, type_name: str) -> EncodeTask:
        """Return how one tensor is encoded: codes that fit the type are kept."""
        tensor = in_own_blocks(self.tensors[name], type_name)  # a pre-pass may have replanned it
        via = self.options.via == "f16" and type_name != "F32" and tensor.type_name != "F16"
        return EncodeTask(tensor, type_name, via)
