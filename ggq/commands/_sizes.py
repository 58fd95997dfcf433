"""What a model takes in every file type: bytes on disk, in memory, and per generated token."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

CONTEXTS = (2048, 8192, 32768)
_SHARE = 0.85  # of the free memory: the rest is for everything else
_BUFFERS = 64 << 20  # activations, vocabulary and the interpreter, roughly


@dataclass(frozen=True)
class Size:
    """One file type of a model: bytes of the file, bytes of weights read for a token.

    ``experts``: those of the experts that tokens choose among, and those of the chosen ones.
    """

    type: str
    n_bytes: int
    per_token: int
    experts: tuple[int, int] = (0, 0)
    projector: int = 0  # bytes of the file beside it that looks at pictures

    def memory(self, cache: int) -> int:
        """Return the bytes that running takes with a cache of so many bytes."""
        return self.n_bytes + self.projector + cache + _BUFFERS

    def from_disk(self, cache: int, memory: int) -> int:
        """Return the bytes of weights that a token reads from disk with ``memory`` bytes free.

        What was used last stays. So weights that every token reads stay if there is room for all of
        them, else none does; experts have the rest, each as likely to be chosen as another.
        """
        room = int(_SHARE * memory) - (self.memory(cache) - self.n_bytes)
        (every, chosen), missing = self.experts, self.n_bytes - room
        if missing <= 0:
            return 0
        return chosen * missing // every if missing < every else self.per_token


def sizes(source: str) -> tuple[Any, list[Size]]:
    """Return the hyper-parameters of ``source`` and its size in every file type, largest first."""
    from ggq.converters.conversion import Options
    from ggq.converters.prepare import prepare
    from ggq.quants.mixtures import FILE_TYPES, MixtureOptions

    options = Options(allow_requantize=True, force=True, check_tokenizer=False, outline=True)
    with prepare(source, type="F16", options=options) as job:
        # of a GGUF file the job knows only what types are chosen by
        hp = present(Path(source))[0] if job.copy_from is not None else job.hparams
        found = [_size(job, hp, name, MixtureOptions(imatrix=True)) for name in FILE_TYPES]
        return hp, sorted(found, key=lambda size: -size.n_bytes)


def present(path: Path) -> tuple[Any, Size]:
    """Return the hyper-parameters of a GGUF file and its size as it is."""
    from ggq import models
    from ggq.gguf import open_gguf, spec

    with open_gguf(path) as file:
        hp = models.get(file.get(spec.KEY_ARCHITECTURE, type=str)).hparams(file)
        tensors = [(t.name, t.shape, t.nbytes) for t in file.tensors.values()]
        return hp, Size("as it is", path.stat().st_size, *_per_token(tensors, hp))


def cache_sizes(hp: Any) -> dict[int, int]:
    """Return context -> bytes of an f16 cache, for common contexts up to the trained one."""
    from ggq.runtime.cache.sizes import cache_bytes

    contexts = [n for n in CONTEXTS if n <= hp.n_ctx_train] or [hp.n_ctx_train]
    return {n: cache_bytes(hp.memories, n) for n in contexts}


def fits(size: Size, cache: int, memory: int) -> bool:
    """Return whether a type runs in so much memory."""
    return size.memory(cache) <= _SHARE * memory


def _size(job: Any, hp: Any, name: str, options: Any) -> Size:
    from ggq.gguf import spec
    from ggq.quants.mixtures import PlanTensor, plan

    tensors = [
        PlanTensor(n, t.shape, t.type_name, job.roles.get(n)) for n, t in job.tensors.items()
    ]
    job.plan = plan(tensors, job.hparams, name, options)
    shapes = {t.name: t.shape for t in tensors}
    found = []
    for tensor, type_name in job.plan.types:
        kind = spec.TYPES[spec.TYPE_IDS[type_name]]
        n_bytes = prod(shapes[tensor]) // kind.block_size * kind.block_bytes
        found.append((tensor, shapes[tensor], n_bytes))
    n_bytes = sum(shard.nbytes for shard in job.writer().plan())
    return Size(name, n_bytes, *_per_token(found, hp))


def _per_token(tensors: list[tuple[str, Any, int]], hp: Any) -> tuple[int, tuple[int, int]]:
    """Return the bytes of weights that decoding a token reads; and of experts: all, the chosen."""
    names, total, experts = {name for name, _, _ in tensors}, 0, 0
    for name, shape, n_bytes in tensors:
        if name == "token_embd.weight" and "output.weight" in names:
            total += n_bytes // max(1, shape[0])  # one row of it
        elif "_exps." in name and hp.n_expert:
            experts += n_bytes
        else:
            total += n_bytes
    chosen = experts * hp.n_expert_used // hp.n_expert if experts else 0
    return total + chosen, (experts, chosen)
