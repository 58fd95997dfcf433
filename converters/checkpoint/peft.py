"""A PEFT adapter folder opened lazily: low-rank changes of weights, by the weights' names.

What an adapter computes: Hu et al., "LoRA" (arXiv 2106.09685), scaled as in rsLoRA (arXiv
2312.03732) where it says so. Forms that compute something else are refused by name. It knows no
architecture.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ggq.converters.checkpoint.folder import read_json
from ggq.converters.checkpoint.refusals import ADAPTER
from ggq.converters.formats.base import TensorLike
from ggq.converters.safetensors import FLOATS, SafetensorsFile
from ggq.errors import FormatError, ModelError, printable

__all__ = ["Delta", "PeftAdapter", "plain_name"]

WEIGHTS = "adapter_model.safetensors"
# Settings that are read below, or that say how it was trained and not what it computes.
KNOWN = frozenset(
    [
        *("task_type", "peft_type", "auto_mapping", "peft_version", "base_model_name_or_path"),
        *("revision", "inference_mode", "r", "target_modules", "exclude_modules", "lora_alpha"),
        *("lora_dropout", "fan_in_fan_out", "bias", "use_rslora", "modules_to_save"),
        *("init_lora_weights", "layers_to_transform", "layers_pattern", "rank_pattern"),
        *("alpha_pattern", "megatron_config", "megatron_core", "loftq_config", "eva_config"),
        *("corda_config", "lora_ga_config", "qalora_group_size", "ensure_weight_tying"),
        "runtime_config",
    ]
)
OTHER_FORMS = {  # setting -> what it makes of LoRA
    "use_dora": "DoRA, which scales each row of the weight anew",
    "alora_invocation_tokens": "an activated LoRA, which begins in the midst of a text",
    "use_qalora": "QA-LoRA, which adds to groups of inputs",
    "lora_bias": "a LoRA with biases",
    "target_parameters": "a LoRA of parameters that are no modules, such as merged experts",
    "trainable_token_indices": "trained rows of the token embedding",
    "layer_replication": "a model with layers repeated",
}
# How A and B were first set; others take from the base what they add, so that it is another base.
STARTS = ("gaussian", "eva", "orthogonal")
NAME = re.compile(
    r"(?:base_model\.model\.)?(.+)\.(?:lora_([AB])(?:\.[\w-]+)?\.weight|lora_embedding_([AB])(?:\.[\w-]+)?)"
)
OUTER = re.compile(r"^(?:(?:model|language_model|text_model|transformer|gpt_neox|bert|roberta)\.)+")
MAX_PATTERN = 200


def plain_name(name: str) -> str:
    """Return a tensor's name without the classes around its model, which differ by who saved it."""
    return OUTER.sub("", name)


@dataclass(frozen=True)
class Delta:
    """What one weight is changed by: ``scale`` x B A, with A (rank, inputs) and B (outputs, rank).

    ``form``: "linear", (outputs, inputs) as B A is; "conv1d", its transpose, as GPT-2 stores it; or
    "embedding", the transpose, too: a row for each token. ``name`` is the weight's.
    """

    name: str
    a: TensorLike
    b: TensorLike
    scale: float
    form: str = "linear"

    @property
    def rank(self) -> int:
        return self.a.shape[0]

    @property
    def shape(self) -> tuple[int, int]:
        """The shape of the weight that it fits."""
        shape = self.b.shape[0], self.a.shape[1]
        return shape if self.form == "linear" else shape[::-1]

    def rows(self, rows: Any) -> np.ndarray:
        """Return rows of the change, float64 (rows, columns): what is added is rounded once."""
        a, b = (x.read(slice(None)).astype(np.float64) for x in (self.a, self.b))
        left, right = (b, a) if self.form == "linear" else (a.T, b.T)
        return self.scale * (left[rows] @ right)


class PeftAdapter:
    """A folder with adapter_config.json and adapter_model.safetensors.

    ``deltas`` maps names of weights to what they are changed by, ``whole`` names to weights that
    stand in the place of the base's (``modules_to_save``). ModelError and FormatError name the
    setting or tensor that is not LoRA's, or that does not fit.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.where = printable(self.folder)
        if not self.folder.is_dir():
            raise FormatError(f"{self.where}: no such folder")
        if not (self.folder / ADAPTER).is_file():
            raise FormatError(f"{self.where}: no {ADAPTER}: is it a PEFT adapter?")
        self.config = read_json(self.folder / ADAPTER, required=True)
        self._check_settings()
        if not (self.folder / WEIGHTS).is_file():
            raise FormatError(f"{self.where}: no {WEIGHTS}: save the adapter as safetensors")
        self._file = SafetensorsFile(self.folder / WEIGHTS)
        self.deltas: dict[str, Delta] = {}
        self.whole: dict[str, TensorLike] = {}
        self._read()

    @property
    def base(self) -> str | None:
        """Return the name of the model that it was made for, None where it does not say."""
        name = self.config.get("base_model_name_or_path")
        return name if isinstance(name, str) and name else None

    def close(self) -> None:
        """Unmap the file."""
        self._file.close()

    def _check_settings(self) -> None:
        config = self.config
        kind = config.get("peft_type")
        if kind != "LORA":
            raise ModelError(f"{self.where}: peft_type {printable(kind)}: only LORA is read")
        for name, what in OTHER_FORMS.items():
            if config.get(name):
                raise ModelError(f"{self.where}: {name} is set: {what}, is not read")
        if config.get("bias", "none") != "none":
            raise ModelError(f"{self.where}: bias {printable(config['bias'])}: only none is read")
        start = config.get("init_lora_weights", True)
        if not isinstance(start, bool) and start not in STARTS:
            what = "its base is not the original model"
            how = "save it with path_initial_model_for_weight_conversion"
            raise ModelError(f"{self.where}: init_lora_weights {printable(start)}: {what}; {how}")
        for name, value in config.items():
            if value and name not in KNOWN:
                raise ModelError(f"{self.where}: setting {printable(name)} is not known")
        for name in ("rank_pattern", "alpha_pattern"):
            pattern = config.get(name) or {}
            if not isinstance(pattern, dict) or not all(map(_harmless, pattern)):
                raise ModelError(f"{self.where}: {name} cannot be read")

    def _read(self) -> None:
        halves: dict[tuple[str, bool], dict[str, TensorLike]] = {}
        for name, tensor in self._file.tensors.items():
            match = NAME.fullmatch(name)
            if tensor.dtype not in FLOATS:
                raise FormatError(f"tensor {printable(name)} holds {tensor.dtype}, not floats")
            if match is not None:
                module, half, embedding = match.groups()
                key = module, embedding is not None
                halves.setdefault(key, {})[half or embedding] = tensor
            elif "lora_" in name or not name.endswith(".weight"):
                raise ModelError(f"tensor {printable(name)} of the adapter is no part of LoRA")
            else:
                plain = name.removeprefix("base_model.model.").replace(".base_layer.", ".")
                self.whole[plain.replace(".modules_to_save.", ".")] = tensor
        for (module, embedding), pair in halves.items():
            self.deltas[f"{module}.weight"] = self._delta(module, embedding, pair)
        if not self.deltas:
            raise ModelError(f"{self.where}: {WEIGHTS} holds no LoRA tensors")

    def _delta(self, module: str, embedding: bool, pair: Mapping[str, TensorLike]) -> Delta:
        where = f"{self.where}: {printable(module)}"
        if missing := {"A", "B"} - set(pair):
            raise FormatError(f"{where}: no lora_{missing.pop()}")
        a, b = pair["A"], pair["B"]
        if len(a.shape) != 2 or len(b.shape) != 2 or a.shape[0] != b.shape[1] or not a.shape[0]:
            raise ModelError(f"{where}: lora_A of shape {a.shape} and lora_B of {b.shape}")
        rank = self._setting(module, "r", "rank_pattern")
        if rank != a.shape[0]:
            raise ModelError(f"{where}: rank {a.shape[0]}, adapter_config.json says {rank:g}")
        alpha = self._setting(module, "lora_alpha", "alpha_pattern")
        scale = alpha / (rank**0.5 if self.config.get("use_rslora") else rank)
        form = "conv1d" if self.config.get("fan_in_fan_out") else "linear"
        return Delta(f"{module}.weight", a, b, scale, "embedding" if embedding else form)

    def _setting(self, module: str, name: str, pattern: str) -> float:
        """Return a module's own number, where a pattern names it, else that of all; ModelError."""
        named = self.config.get(pattern) or {}
        own = (v for k, v in named.items() if re.fullmatch(rf"(?:.*\.)?(?:{k})", module))
        value = next(own, self.config.get(name))
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value < 1e6:
            raise ModelError(f"{self.where}: {name} is {printable(repr(value))}, no number")
        return value


def _harmless(pattern: str) -> bool:
    """Tell whether it is an expression whose time grows with no power of the text's length."""
    if len(pattern) > MAX_PATTERN or re.search(r"\)[*+?{]|[*+?}][*+{]|\\\d", pattern):
        return False
    if sum(map(pattern.count, "*+{")) > 3:
        return False
    try:
        re.compile(pattern)
    except re.error:
        return False
    return True
