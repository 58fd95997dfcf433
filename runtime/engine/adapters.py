"""LoRA adapters of a model, from GGUF files as llama.cpp's converter writes them, checked.

For a weight W an adapter holds A (rank, inputs) and B (outputs, rank): W x becomes
W x + scale * alpha / rank * B A x (Hu et al., arXiv 2106.09685). Which scale a sequence has, its
``mix`` says. It knows no kernel.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ggq.errors import ModelError, UsageError, option, printable
from ggq.gguf import GGUFFile, open_gguf
from ggq.models.hparams import HParams
from ggq.runtime.backends.numba.plan import MOST_ADAPTERS
from ggq.runtime.engine.backend import Architecture
from ggq.runtime.engine.weights import Tensor, Weights

__all__ = ["Adapter", "Pair", "multiplied", "open_adapters"]

GROUP = 16  # outputs that lie side by side: a vector's lanes
FLOATS = ("F32", "F16", "BF16")
MERGED = "merge it into the model (ggq convert --merge-lora)"


class Pair:
    """The factors of one weight; ``scale``: what the file multiplies their product by."""

    def __init__(self, a: Tensor, b: Tensor, alpha: float) -> None:
        self.a, self.rank = a, a.shape[0]
        self.scale = alpha / self.rank if alpha else 1.0
        self._b, self._made = b, dict[tuple[int, int], np.ndarray]()

    def groups(self, first: int, end: int) -> np.ndarray:
        """Return scaled rows of B as float32 (groups of 16, rank, 16), zeros behind the last."""
        if (first, end) not in self._made:
            rows = self._b.dequantized()[first:end] * np.float32(self.scale)
            padded = np.zeros((-(-len(rows) // GROUP) * GROUP, self.rank), np.float32)
            padded[: len(rows)] = rows
            turned = padded.reshape(-1, GROUP, self.rank).swapaxes(1, 2)
            self._made[first, end] = np.ascontiguousarray(turned)
        return self._made[first, end]


class Adapter:
    """One open adapter: ``scale`` at first, ``pairs`` by the names of the weights they change."""

    def __init__(self, file: GGUFFile, architecture: Any, model: GGUFFile, hp: HParams) -> None:
        """Check that the file is an adapter of the open model; ModelError names what is not."""
        self.file, self.path, self.scale = file, file.path, 1.0
        where = printable(self.path)
        said = {k: file.get(k, type=str) for k in ("general.type", "adapter.type")}
        if said != {"general.type": "adapter", "adapter.type": "lora"}:
            raise ModelError(f"{where}: is no LoRA adapter (general.type, adapter.type)")
        if "adapter.alora.invocation_tokens" in file.metadata:
            raise ModelError(f"{where}: an activated LoRA, which begins in a text, is not known")
        its, ours = file.get("general.architecture", type=str), architecture.name
        if its != ours:
            raise ModelError(f"{where}: is an adapter of {printable(its)}, the model is {ours}")
        alpha = file.get("adapter.lora.alpha", 0.0, float)
        if not math.isfinite(alpha):
            raise ModelError(f"{where}: adapter.lora.alpha is {alpha}")
        weights, stems = Weights(file), dict[str, None]()
        for name in file.tensors:
            stem, dot, half = name.rpartition(".")
            if not dot or half not in ("lora_a", "lora_b"):
                raise ModelError(f"{where}: tensor {printable(name)} is no part of a LoRA")
            stems[stem] = None
        known = multiplied(architecture, hp)
        self.pairs: Mapping[str, Pair] = {
            stem: _pair(where, stem, weights, model, known, alpha) for stem in stems
        }
        if not self.pairs:
            raise ModelError(f"{where}: the adapter is empty")


def _pair(
    where: str,
    stem: str,
    weights: Weights,
    model: GGUFFile,
    known: frozenset[str],
    alpha: float,
) -> Pair:
    """Return a weight's factors; ModelError where they do not fit it."""
    what = f"{where}: {printable(stem)}"
    names = f"{stem}.lora_a", f"{stem}.lora_b"
    if missing := [n for n in names if n not in weights]:
        raise ModelError(f"{where}: no tensor {printable(missing[0])}")
    if stem not in model.tensors:
        raise ModelError(f"{what}: the model has no such tensor: it is another model's adapter")
    if stem not in known:
        raise ModelError(f"{what}: an adapter of it is not applied as it runs: {MERGED}")
    a, b = weights[names[0]], weights[names[1]]
    for tensor in (a, b):
        if tensor.type.name not in FLOATS:
            raise ModelError(f"{where}: {printable(tensor.name)} is {tensor.type.name}, no floats")
    if len(a.shape) != 2 or len(b.shape) != 2 or a.shape[0] != b.shape[1]:
        raise ModelError(f"{what}: lora_a of {a.shape} and lora_b of {b.shape}: ranks differ")
    wants = tuple(int(n) for n in model.tensors[stem].shape)
    has = b.shape[0], a.shape[1]
    if has != wants:
        raise ModelError(f"{what} is {has} in the adapter, {wants} in the model: another model's")
    return Pair(a, b, alpha)


def multiplied(architecture: Any, hp: HParams) -> frozenset[str]:
    """Return the weights that a forward pass multiplies rows by: no tables, experts, kernels."""
    return frozenset(
        name
        for name, row, layer in architecture.rows(hp)
        if row.input is not None
        and len(row.shape) == 2
        and name.endswith(".weight")
        and (layer is None or layer < hp.n_layer)
    )


def open_adapters(
    given: Sequence[str | os.PathLike[str]],
    architecture: Architecture,
    model: GGUFFile,
    hp: HParams,
) -> list[Adapter]:
    """Open adapters given as FILE or FILE=SCALE; GGQError names the file and what is wrong."""
    if len(given) > MOST_ADAPTERS:
        raise UsageError(f"{option('--lora')}: {MOST_ADAPTERS} adapters at most, not {len(given)}")
    found = list[Adapter]()
    try:
        for one in given:
            path, scale = _split(os.fspath(one))
            if path.is_dir():
                what = f"{option('--lora')} {printable(path)}: is a folder, no GGUF adapter"
                raise UsageError(f"{what}: ggq convert {printable(path)} --base MODEL makes one")
            file = open_gguf(path)
            try:
                found.append(Adapter(file, architecture, model, hp))
            except BaseException:
                file.close()
                raise
            found[-1].scale = scale
    except BaseException:
        for adapter in found:
            adapter.file.close()
        raise
    return found


def _split(given: str) -> tuple[Path, float]:
    """Return the file and the scale of FILE[=SCALE]; UsageError for a scale that is no number."""
    name, equals, text = given.rpartition("=")
    if given and (not equals or Path(given).exists()):
        return Path(given), 1.0
    try:
        scale = float(text)
    except ValueError:
        scale = math.nan
    if not name or not abs(scale) <= 1e6:
        raise UsageError(f"{option('--lora')} {printable(given)}: expected FILE or FILE=SCALE")
    return Path(name), scale
