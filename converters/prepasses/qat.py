"""Quantization-aware training of a transformers model: ``ggq.prepass.qat``.

`prepare` makes a model being fine-tuned compute with the very values that a GGUF file of a type
would hold, `export` writes the blocks it then has. Types are the mixture's, scales the block
search's, codes and values the block type's own: nothing is quantized again later.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.utils import parametrize

from ggq.converters.imatrix import without_gaps
from ggq.converters.prepasses.training.latent import rounded
from ggq.errors import UsageError, printable

__all__ = ["FakeQuant", "export", "fake_quants", "freeze", "prepare"]


class FakeQuant(torch.nn.Module):
    """A parametrization: weights (..., n) become the values of their blocks, gradients pass.

    The scales are searched anew at every ``every``-th forward of training, the codes at each.
    Exact in float32; a weight of another dtype gets the values rounded to it.
    """

    def __init__(self, kind: Any, every: int = 1, importance: np.ndarray | None = None):
        super().__init__()
        self.kind, self.every, self.importance = kind, every, importance
        self._params: dict[str, np.ndarray] | None = None
        self._uses = 0

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        x = _rows(weight)
        if self._params is None or (self.training and self._uses % self.every == 0):
            self._params, _ = self.kind.unpack(self.kind.quantize(x, self.importance))
        self._uses += self.training
        values = self.kind.decode(self._params, self.kind.encode(x, self._params))
        made = torch.from_numpy(values).reshape(weight.shape).to(weight)
        return rounded(weight, made)

    def blocks(self, weight: torch.Tensor) -> np.ndarray:
        """Return the blocks of what ``forward`` gives, uint8 (rows, row bytes)."""
        x = _rows(weight)
        if self._params is None:
            self._params, _ = self.kind.unpack(self.kind.quantize(x, self.importance))
        return self.kind.pack(self._params, self.kind.encode(x, self._params))


def _rows(weight: torch.Tensor) -> np.ndarray:
    rows = weight.detach().to("cpu", torch.float32).reshape(-1, weight.shape[-1])
    return np.ascontiguousarray(rows.numpy())


def prepare(
    model: Any, type: str = "Q4_K_M", every: int = 1, imatrix: Any = None
) -> dict[str, str]:
    """Let a transformers ``model`` compute as a GGUF file of ``type`` would; return its types.

    Every matrix that such a file quantizes gets a `FakeQuant`, in place; the result maps the
    model's parameters to block types. ``imatrix``: an `Imatrix` whose importance the searches
    use. UsageError where nothing would be quantized.
    """
    from ggq import quants

    if not hasattr(model, "config") or not hasattr(model, "named_modules"):
        raise UsageError(f"model: expected one of transformers, not {printable(repr(model), 60)}")
    if every < 1:
        raise UsageError(f"every: expected a number at least 1, not {every}")
    if fake_quants(model):
        raise UsageError("the model has fake-quantized weights already: it is prepared once")
    found = {}
    modules = dict(model.named_modules())
    importance = imatrix.values if imatrix is not None else {}
    for name, (tensor, kind) in _planned(model, type, importance).items():
        path, _, attribute = name.rpartition(".")
        module = modules.get(path)
        weight = getattr(module, attribute, None)
        if (
            module is None
            or weight is None
            or weight.ndim != 2
            or parametrize.is_parametrized(module, attribute)
        ):
            continue
        power = importance.get(tensor)
        fits = power is not None and power.size == weight.shape[-1]
        power = without_gaps(power) if power is not None and fits else None
        fake = FakeQuant(quants.get(kind), every, power)
        parametrize.register_parametrization(module, attribute, fake)
        found[name] = kind
    if not found:
        raise UsageError(f"{type}: none of the model's matrices can be trained in it")
    if model.config.tie_word_embeddings:
        _tie(model)
    return found


def _tie(model: Any) -> None:
    """Let a head that shares the embedding's weights share their blocks."""
    source, head = model.get_input_embeddings(), model.get_output_embeddings()
    if head is None or not parametrize.is_parametrized(source, "weight"):
        return
    fake = source.parametrizations.weight[0]
    parametrize.register_parametrization(head, "weight", fake)
    head.parametrizations.weight.original = source.parametrizations.weight.original


def _planned(
    model: Any, wanted: str, importance: Mapping[str, np.ndarray]
) -> dict[str, tuple[str, str]]:
    """Return parameter -> (GGUF tensor, block type) for matrices whose rows stay whole rows."""
    from ggq import models, quants
    from ggq.converters.checkpoint.transforms import TRANSFORMS
    from ggq.quants.mixtures import MixtureOptions, PlanTensor, plan

    config = model.config.to_dict()
    architecture = models.for_hf(config)
    hp = architecture.hparams(config)
    held = {name for name, _ in model.named_parameters()}  # a tied head is not among them
    rows = []
    for name, row, layer in architecture.rows(hp):
        sources = architecture.sources(row, hp, layer)
        if sources and held.issuperset(sources):
            rows.append((name, row, sources, architecture.shape(row, hp, layer)))
    options = MixtureOptions(imatrix=bool(importance))
    tensors = [PlanTensor(name, shape, "F32", row.role) for name, row, _, shape in rows]
    types = dict(plan(tensors, hp, wanted, options).types)
    found = {}
    for name, row, sources, shape in rows:
        transform = TRANSFORMS[row.transform]
        if transform.values or transform.columns or len(shape) != 2 or len(sources) != 1:
            continue
        if hasattr(quants.get(types[name]), "encode"):
            found[sources[0]] = name, types[name]
    return found


def fake_quants(model: Any) -> dict[str, tuple[FakeQuant, torch.Tensor]]:
    """Return parameter -> (its `FakeQuant`, the weight that is trained)."""
    found = {}
    for path, module in model.named_modules():
        for attribute, parts in getattr(module, "parametrizations", {}).items():
            if isinstance(parts[0], FakeQuant):
                found[f"{path}.{attribute}"] = parts[0], parts.original
    return found


def freeze(model: Any) -> None:
    """Give a prepared ``model`` the values of its blocks as plain weights that are not trained.

    For an adapter that is trained beside them (QLoRA): nothing is searched or rounded any more, and
    a file that `ggq convert` makes without passes holds these values. UsageError if the model was
    not prepared.
    """
    fakes = fake_quants(model)
    if not fakes:
        raise UsageError("the model has no fake-quantized weights: call qat.prepare first")
    modules = dict(model.named_modules())
    for name, (fake, weight) in fakes.items():
        path, _, attribute = name.rpartition(".")
        values = fake.kind.dequantize(fake.kind.quantize(_rows(weight), fake.importance))
        parametrize.remove_parametrizations(modules[path], attribute, leave_parametrized=False)
        with torch.no_grad():
            plain = getattr(modules[path], attribute)
            plain.copy_(torch.from_numpy(values).reshape(plain.shape))
    if model.config.tie_word_embeddings:
        model.tie_weights()
    model.requires_grad_(False)


def export(model: Any, folder: str | Path, tokenizer: Any = None) -> Path:
    """Write a prepared ``model`` as a checkpoint of blocks that `ggq convert` keeps as they are.

    ``folder`` must not exist or be empty; ``tokenizer`` is saved beside the weights. Convert it to
    the type that the model was prepared for. UsageError if the model was not prepared.
    """
    from safetensors.numpy import save_file

    from ggq.converters.formats.ggq import METHOD, SUFFIX

    folder = Path(folder)
    fakes = fake_quants(model)
    if not fakes:
        raise UsageError("the model has no fake-quantized weights: call qat.prepare first")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{printable(folder)}: is no empty folder")
    tied = model.config.tie_word_embeddings
    tensors, types = {}, {}
    for name, parameter in model.named_parameters():
        name = name.replace(".parametrizations.", ".").removesuffix(".original")
        if tied and name == "lm_head.weight":
            continue
        if name in fakes:
            fake, weight = fakes[name]
            tensors[f"{name}{SUFFIX}"], types[name] = fake.blocks(weight), fake.kind.name
        else:
            tensors[name] = parameter.detach().cpu().float().numpy()
    model.config.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config |= {"architectures": [model.__class__.__name__]}
    config["quantization_config"] = {"quant_method": METHOD, "types": types}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    return folder
