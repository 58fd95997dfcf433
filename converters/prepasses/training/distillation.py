"""One distillation of one model: the streams of teacher and student, the steps, the judge.

Memory block by block: one block's weights (about 40 bytes each) and two residual streams of all
tokens; end to end all weights at once. It asks the tape what a block is and the latents what their
values are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil, prod
from typing import Any

import numpy as np
import torch

from ggq.converters.prepasses.base import Packed, Replaced
from ggq.converters.prepasses.resume import Store
from ggq.converters.prepasses.training.latent import Latent, LatentVector
from ggq.converters.prepasses.training.tape import Piece, Tape
from ggq.runtime.backends.torch.backend import TorchOps

__all__ = ["Distillation"]

BYTES = {True: 36, False: 16}  # a weight takes end to end, with its code trained or only scales
CHECKS = 4  # looks at the judging windows in a training

Streams = list[dict[int, torch.Tensor]]


class Distillation:
    """``options`` is the pass; ``windows`` int64 (n, n_ctx)."""

    def __init__(self, options: Any, job: Any, windows: np.ndarray):
        from ggq.converters.calibration.weights import SourceWeights, hparams_of

        self.options, self.job = options, job
        facts = {k: v for k, v in vars(options).items() if k not in ("progress", "memory")}
        self.store = Store(job, facts, windows.tobytes(), _state(job))
        job.on_written.append(self.store.remove)
        self._start = _encoded(job)
        original = SourceWeights({**job.tensors, **job.original})
        architecture, hp = hparams_of(job)
        self.pieces = Tape(architecture, hp, original).pieces()
        self.teacher = TorchOps(original)
        self.student = TorchOps(SourceWeights(self._start))
        self._ids = [torch.from_numpy(w) for w in _batches(windows, options)]
        self._judging = _judging(len(self._ids), options)
        self._made: dict[str, Any] = {}

    # -- block by block ----------------------------------------------------------------------

    def by_blocks(self) -> None:
        """Train each block on the student's stream towards the teacher's."""
        taught: Streams = [{} for _ in self._ids]
        learnt: Streams = [{} for _ in self._ids]
        for n, piece in enumerate(self.pieces[:-1]):
            wanted = self._through(self.teacher, piece, taught)
            if self.options.steps and piece.block is not None and piece.block >= 0:
                self._block(piece, learnt, [w[piece.gives[-1]] for w in wanted])
            made = self._through(self.student, piece, learnt)
            needed = {i for p in self.pieces[n + 1 :] for i in p.takes}
            taught, learnt = (
                [{i: v for i, v in {**old, **new}.items() if i in needed} for old, new in pair]
                for pair in (zip(taught, wanted, strict=True), zip(learnt, made, strict=True))
            )
            self.teacher.release()
            self.student.release()
            self._advance(n + 1, f"blk.{piece.block}")

    @torch.no_grad()
    def _through(self, ops: TorchOps, piece: Piece, streams: Streams) -> Streams:
        made = []
        for ids, held in zip(self._ids, streams, strict=True):
            made.append(piece.run(ops, ids, held))
            piece.check(made[-1])
        return made

    def _block(self, piece: Piece, streams: Streams, wanted: list[torch.Tensor]) -> None:
        names = [n for n in piece.tensors(self.teacher.has) if self._trainable(n)]
        if self._load(names):
            return
        latents = {name: self._latent(name, self._is_free(name)) for name in names}

        def loss(i: int) -> torch.Tensor:
            got = piece.run(self.student, self._ids[i], streams[i])[piece.gives[-1]]
            error = (got - wanted[i]).square().sum(-1)
            return (error / wanted[i].square().sum(-1).clamp_min(1e-12)).mean()

        options = self.options
        self._train(latents, loss, options.steps, options.reach, options.rate)
        self._save(latents)

    # -- end to end --------------------------------------------------------------------------

    def end_to_end(self) -> None:
        """Train all that fits towards the teacher's predictions."""
        options = self.options
        names = [n for p in self.pieces for n in p.tensors(self.teacher.has)]
        names = [n for n in dict.fromkeys(names) if self._trainable(n)]
        weights = sum(prod(self._start[n].shape) for n in names)
        need = BYTES[options.codes] * weights / 1e9
        if not options.final or self._load(names, "final"):
            return
        if need > options.memory:
            self.job.warnings.append(f"distill: end to end needs memory={ceil(need)} GB, left out")
            return
        latents = {name: self._latent(name, options.codes) for name in names}

        def loss(i: int) -> torch.Tensor:
            with torch.no_grad():
                wanted = self._logits(self.teacher, i).log_softmax(-1)
            got = self._logits(self.student, i).log_softmax(-1)
            return (wanted.exp() * (wanted - got)).sum(-1).mean()

        self._train(latents, loss, options.final, options.reach, options.gain * options.rate)
        self._save(latents, "final")

    def _logits(self, ops: TorchOps, i: int) -> torch.Tensor:
        held: dict[int, torch.Tensor] = {}
        for piece in self.pieces:
            held |= piece.run(ops, self._ids[i], held)
        return held[self.pieces[-1].gives[-1]]

    # -- steps -------------------------------------------------------------------------------

    def _train(
        self,
        latents: dict[str, Any],
        loss: Callable[[int], torch.Tensor],
        steps: int,
        reach: float,
        rate: float,
    ) -> None:
        """Lower ``loss(batch)``; keep the state that the judging batches found best, at worst the
        first. Adam with steps that fall to zero."""
        groups: dict[str, list[torch.Tensor]] = {"codes": [], "scales": []}
        for latent in latents.values():
            for kind, tensor in latent.trained():
                groups[kind].append(tensor.requires_grad_())
        sizes = {"codes": 2 * reach / steps, "scales": rate}
        optimizer = torch.optim.Adam(
            [{"params": groups[k], "lr": sizes[k], "first": sizes[k]} for k in groups if groups[k]],
            betas=(0.9, 0.99),
        )
        best, state = self._judge(latents, loss), self._states(latents)
        order = self._order(steps, len(self._made))
        for step, batch in enumerate(order):
            for group in optimizer.param_groups:
                group["lr"] = group["first"] * (1 - step / steps)
            self._use(latents)
            optimizer.zero_grad()
            loss(batch).backward()
            optimizer.step()
            for latent in latents.values():
                latent.settle()
            if (step + 1) % max(1, steps // CHECKS) == 0 or step + 1 == steps:
                found = self._judge(latents, loss)
                if found < best:
                    best, state = found, self._states(latents)
        for name, latent in latents.items():
            latent.restore(state[name])
            for _, tensor in latent.trained():
                tensor.requires_grad_(False)
                tensor.grad = None
        self._use(latents)

    def _order(self, steps: int, salt: int) -> list[int]:
        """Return the batch of each step: all that do not judge in turn, shuffled each time."""
        generator = torch.Generator().manual_seed(self.options.seed + salt)
        training = [i for i in range(len(self._ids)) if i not in self._judging]
        order: list[int] = []
        while len(order) < steps:
            mixed = torch.randperm(len(training), generator=generator).tolist()
            order += [training[i] for i in mixed]
        return order[:steps]

    def _use(self, latents: dict[str, Any]) -> None:
        """Give the student the values of the latents."""
        for name, latent in latents.items():
            self.student.replace(name, latent.values().reshape(self._start[name].shape))

    @torch.no_grad()
    def _judge(self, latents: dict[str, Any], loss: Callable[[int], torch.Tensor]) -> float:
        self._use(latents)
        return sum(float(loss(i)) for i in self._judging) / len(self._judging)

    @staticmethod
    def _states(latents: dict[str, Any]) -> dict[str, list[torch.Tensor]]:
        return {name: latent.state() for name, latent in latents.items()}

    # -- tensors -----------------------------------------------------------------------------

    def _trainable(self, name: str) -> bool:
        from ggq import quants

        tensor = self._start[name]
        if len(tensor.shape) == 1:
            return self.options.norms and tensor.type_name == "F32"
        return hasattr(quants.get(tensor.type_name), "grid") and name not in ("rope_freqs.weight",)

    def _is_free(self, name: str) -> bool:
        """Tell whether no earlier pass chose the codes: those that were chosen together stay."""
        return not isinstance(self.job.tensors[name], Packed)

    def _latent(self, name: str, codes: bool) -> Any:
        from ggq import quants
        from ggq.converters.calibration.weights import SourceWeights

        start = self._made.get(name) or self._start[name]
        rows = prod(start.shape[:-1])
        if len(start.shape) == 1:
            return LatentVector(start.read(0, 1)[0])
        origin = None
        if codes and name not in self._made:
            origin = SourceWeights(self.job.tensors)[name].dequantized().reshape(rows, -1)
        return Latent(quants.get(start.type_name), start.raw(0, rows), origin, codes)

    def _save(self, latents: dict[str, Any], stage: str = "block") -> None:
        for name, latent in latents.items():
            shape = self._start[name].shape
            if isinstance(latent, LatentVector):
                blocks = latent.values().numpy()[None].view(np.uint8)
            else:
                blocks = latent.blocks()
            self.store.save(f"{stage}:{name}", blocks)
            self._keep(name, shape, blocks)

    def _load(self, names: Sequence[str], stage: str = "block") -> bool:
        """Take an earlier run's results where it has all of them."""
        from ggq import quants

        found = {}
        for name in names:
            shape, kind = self._start[name].shape, quants.get(self._start[name].type_name)
            wanted = prod(shape[:-1]), kind.row_bytes(shape[-1])
            found[name] = self.store.load(f"{stage}:{name}", wanted)
        kept = {name: blocks for name, blocks in found.items() if blocks is not None}
        if len(kept) < len(found):
            return False
        for name, blocks in kept.items():
            self._keep(name, self._start[name].shape, blocks)
        return True

    def _keep(self, name: str, shape: tuple[int, ...], blocks: np.ndarray) -> None:
        from ggq.converters.calibration.weights import SourceWeights

        self._made[name] = Packed(name, shape, self._start[name].type_name, blocks)
        self.student.weights = SourceWeights({**self._start, **self._made})
        self.student.release([name])

    def tensors(self) -> dict[str, Any]:
        """Return what takes the place of the conversion's tensors: every one as it is written."""
        return {**self._start, **self._made}

    def _advance(self, done: int, name: str) -> None:
        if self.options.progress:
            self.options.progress(done, len(self.pieces), name)


def _judging(n_batches: int, options: Any) -> range:
    """Return the batches that judge: a share of them, eight windows at least, half at most."""
    wanted = max(round(n_batches / options.held), ceil(8 / options.batch))
    return range(max(1, min(wanted, n_batches // 2)))


def _batches(windows: np.ndarray, options: Any) -> list[np.ndarray]:
    """Return the windows in batches, each from all over the text."""
    n = max(2, len(windows) // options.batch)
    windows = np.random.default_rng(options.seed).permutation(windows)
    return [np.ascontiguousarray(windows[i::n], np.int64) for i in range(n)]


def _encoded(job: Any) -> dict[str, Packed]:
    """Return every tensor as the file would hold it now."""
    from ggq.converters.encode import encode_all

    parts: dict[str, list[np.ndarray]] = {}
    tasks = [job.encode_task(name, type_name) for name, type_name in job.plan.types]
    encode_all(tasks, lambda name, rows: parts.setdefault(name, []).append(rows), job.imatrix)
    return {
        name: Packed(name, job.tensors[name].shape, kind, np.concatenate(parts[name]))
        for name, kind in job.plan.types
    }


def _state(job: Any) -> str:
    """Return which tensors earlier passes made, and how: part of what a resumed run must share."""
    import hashlib

    found = hashlib.sha256()
    for name in sorted(job.tensors):
        tensor = job.tensors[name]
        if isinstance(tensor, (Packed, Replaced)):
            data = tensor.blocks if isinstance(tensor, Packed) else tensor.values
            found.update(name.encode() + np.ascontiguousarray(data).tobytes())
    return found.hexdigest()
