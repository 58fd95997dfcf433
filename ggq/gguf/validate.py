"""Checks what the keys of a well-formed file say before a tokenizer or a kernel relies on it.

Kernels have no bounds checks: sizes, head counts and token ids are made sure of here, for every
architecture alike. Tensor shapes against hyper-parameters are the architecture's matter
(ggq.models), block decoding is ggq.quants'.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NoReturn

import numpy as np

from ggq.errors import ModelError, printable
from ggq.gguf import spec
from ggq.gguf.metadata import StringArray
from ggq.gguf.reader import GGUFFile

MAX_LAYERS = 512  # llama.cpp's LLAMA_MAX_LAYERS
_ARCHITECTURE = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")
_BLOCK = re.compile(r"blk\.(\d{1,9})\.")

# {arch}.KEY -> smallest and largest value. Keys that are absent are the architecture's matter.
INT_KEYS = {
    "block_count": (1, MAX_LAYERS),
    "embedding_length": (1, 1 << 20),
    "context_length": (1, (1 << 31) - 1),
    "vocab_size": (1, 1 << 27),
    "attention.key_length": (1, 1 << 16),
    "attention.value_length": (1, 1 << 16),
    "rope.dimension_count": (0, 1 << 16),
    "rope.scaling.original_context_length": (0, (1 << 31) - 1),
    "expert_count": (0, 4096),
    "expert_used_count": (0, 4096),
    "expert_shared_count": (0, 4096),
    "expert_feed_forward_length": (0, 1 << 24),
    "leading_dense_block_count": (0, MAX_LAYERS),
    "nextn_predict_layers": (0, MAX_LAYERS),
    "ssm.conv_kernel": (0, 1 << 16),
    "ssm.inner_size": (0, 1 << 24),
    "ssm.state_size": (0, 1 << 16),
    "ssm.time_step_rank": (0, 1 << 24),
    "ssm.group_count": (0, 1 << 16),
}
# A scalar or one value per layer.
PER_LAYER_KEYS = {
    "attention.head_count": (0, 1 << 16),
    "attention.head_count_kv": (0, 1 << 16),
    "feed_forward_length": (0, 1 << 24),
    "attention.sliding_window": (0, (1 << 31) - 1),
}
# Smallest value (exclusive) of floats; all others must only be finite.
POSITIVE_FLOATS = (
    "attention.layer_norm_rms_epsilon",
    "attention.layer_norm_epsilon",
    "rope.freq_base",
)
REQUIRED = ("block_count", "embedding_length", "context_length")
BOOL_KEYS = ("add_bos_token", "add_eos_token", "add_space_prefix", "remove_extra_whitespaces")
STRING_KEYS = ("general.name", "general.type", "tokenizer.chat_template", "tokenizer.ggml.pre")
BOUNDLESS = ("activation_sparsity_scale",)  # minus infinity: no gate is cut off
INT_GENERAL = ("general.file_type", "general.quantization_version")
# Ids that no generation depends on: out of range, as in many Llama 2 derivatives, is a warning.
UNUSED_IDS = frozenset({"padding", "seperator", "mask", "cls"})
NO_ID = (1 << 32) - 1


def validate_model(f: GGUFFile, vocab_only: bool = False) -> list[str]:
    """Check all keys that size buffers or index tables; return warnings.

    Raises ModelError naming the file and the key or tensor. ``vocab_only`` checks the tokenizer
    alone.
    """
    checker = _Checker(f)
    checker.check_general()
    if not vocab_only:
        checker.check_hyperparameters()
        checker.check_blocks()
    checker.check_tokenizer(vocab_only)
    return checker.warnings


class _Checker:
    """The state of one check: the file, its architecture and the warnings so far."""

    def __init__(self, f: GGUFFile) -> None:
        self.f = f
        self.arch = ""
        self.warnings: list[str] = []

    def fail(self, key: str, text: str, kind: str = "key") -> NoReturn:
        raise ModelError(f"{printable(self.f.path)}: {kind} '{printable(key)}': {text}")

    def check_general(self) -> None:
        self.arch = self.f.require(spec.KEY_ARCHITECTURE, str)
        if not _ARCHITECTURE.fullmatch(self.arch):
            self.fail(spec.KEY_ARCHITECTURE, f"'{printable(self.arch)}' is no architecture name")
        for key in STRING_KEYS:
            self.f.get(key, None, str)
        for key in INT_GENERAL:
            self.f.get(key, None, int)
        kind = self.f.get("general.type", "model", str)
        if kind not in ("model", "vocab"):
            self.fail("general.type", f"the file is of type '{printable(kind)}', not a model")
        for key in self.f.metadata:
            if key.startswith(("general.sampling.", self.arch + ".")):
                self._check_finite(key)

    def _check_finite(self, key: str) -> None:
        stored = self.f.array_type(key) or self.f.value_type(key)
        if stored not in spec.FLOAT_TYPES:
            return
        values = np.asarray(self.f.metadata[key])
        if key.removeprefix(f"{self.arch}.") in BOUNDLESS:
            values = values[values != -np.inf]
        if not np.all(np.isfinite(values)):
            self.fail(key, "is not a finite number")

    def check_hyperparameters(self) -> None:
        for name in REQUIRED:
            self.f.require(f"{self.arch}.{name}")
        for name, limits in INT_KEYS.items():
            value = self.f.get(f"{self.arch}.{name}", None, int)
            if value is not None:
                self._check_range(name, value, limits)
        for name, limits in PER_LAYER_KEYS.items():
            for value in self.per_layer(name):
                self._check_range(name, value, limits)
        for name in POSITIVE_FLOATS:
            value = self.f.get(f"{self.arch}.{name}", None, float)
            if value is not None and value <= 0:
                self.fail(f"{self.arch}.{name}", f"is {value}, must be above 0")
        self._check_heads()
        self._check_experts()

    def _check_range(self, name: str, value: int, limits: tuple[int, int]) -> None:
        low, high = limits
        if not low <= value <= high:
            self.fail(f"{self.arch}.{name}", f"is {value}, must be from {low} to {high}")

    def per_layer(self, name: str) -> list[int]:
        """Return the values of a scalar-or-array key, [] where absent."""
        key = f"{self.arch}.{name}"
        if key not in self.f.metadata:
            return []
        if self.f.value_type(key) != spec.ARRAY:
            return [self.f.get(key, None, int)]
        values = self.f.metadata[key]
        if isinstance(values, StringArray) or values.dtype.kind not in "iu":
            self.fail(key, "must hold integers")
        n_layer = self.f.require(f"{self.arch}.block_count", int)
        if not n_layer <= len(values) <= MAX_LAYERS:
            self.fail(key, f"has {len(values)} values for {n_layer} layers")
        return [int(value) for value in values]

    def _check_heads(self) -> None:
        heads, heads_kv = (
            self.per_layer("attention.head_count"),
            self.per_layer("attention.head_count_kv"),
        )
        if not heads:
            return
        key_kv = f"{self.arch}.attention.head_count_kv"
        n = max(len(heads), len(heads_kv))
        for q, kv in zip(_stretch(heads, n), _stretch(heads_kv or heads, n), strict=False):
            if kv and q % kv:
                self.fail(key_kv, f"{q} heads cannot share {kv} key-value heads evenly")
        if f"{self.arch}.attention.key_length" in self.f.metadata:
            return
        n_embd = self.f.require(f"{self.arch}.embedding_length", int)
        for q in heads:
            if q and n_embd % q:
                self.fail(
                    f"{self.arch}.attention.head_count", f"{q} heads do not divide width {n_embd}"
                )

    def _check_experts(self) -> None:
        n_expert = self.f.get(f"{self.arch}.expert_count", 0, int)
        used = self.f.get(f"{self.arch}.expert_used_count", 0, int)
        if used > n_expert:
            self.fail(f"{self.arch}.expert_used_count", f"uses {used} of {n_expert} experts")
        if n_expert and not used:
            self.fail(
                f"{self.arch}.expert_used_count", f"must be at least 1 with {n_expert} experts"
            )

    def _empty(self, i: int) -> bool:
        """Tell whether the lists of layers' sizes say that block ``i`` has no part at all."""
        for name in ("feed_forward_length", "attention.head_count"):
            listed: Any = self.f.metadata.get(f"{self.arch}.{name}")
            one = not isinstance(listed, (str, bytes)) and hasattr(listed, "__len__")
            if not one or len(listed) <= i or listed[i]:
                return False
        return True

    def check_blocks(self) -> None:
        if not self.f.tensors:
            raise ModelError(f"{printable(self.f.path)}: holds no tensors, only metadata")
        n_layer = self.f.require(f"{self.arch}.block_count", int)
        found = set(self._block_numbers())
        missing = next((i for i in range(n_layer) if i not in found and not self._empty(i)), None)
        if missing is not None:
            self.fail(
                f"{self.arch}.block_count", f"is {n_layer}, but there is no tensor blk.{missing}.*"
            )
        extra = sum(i >= n_layer for i in found)
        if extra:
            self.warnings.append(
                f"{extra} blocks beyond {self.arch}.block_count = {n_layer} are unused"
            )

    def _block_numbers(self) -> Iterator[int]:
        for name in self.f.tensors:
            match = _BLOCK.match(name)
            if match:
                yield int(match[1])

    def check_tokenizer(self, required: bool) -> None:
        key = "tokenizer.ggml.tokens"
        if key not in self.f.metadata:
            if required or "tokenizer.ggml.model" in self.f.metadata:
                self.fail(key, "is missing")
            return
        self.f.require("tokenizer.ggml.model", str)
        n_vocab = len(self._strings(key))
        if not n_vocab:
            self.fail(key, "is empty")
        self._check_parallel("tokenizer.ggml.token_type", n_vocab, "iu")
        self._check_parallel("tokenizer.ggml.scores", n_vocab, "f")
        self._check_merges()
        self._check_ids(n_vocab)
        for name in BOOL_KEYS:
            self.f.get(f"tokenizer.ggml.{name}", None, bool)
        for name in ("token_embd.weight", "output.weight"):
            tensor = self.f.tensors.get(name)
            if tensor is not None and tensor.shape[0] != n_vocab:
                rows = tensor.shape[0]
                self.fail(name, f"has {rows} rows for a vocabulary of {n_vocab} tokens", "tensor")

    def _strings(self, key: str) -> StringArray:
        values = self.f.get(key, None, "array")
        if not isinstance(values, StringArray):
            self.fail(key, "must hold strings")
        return values

    def _check_parallel(self, key: str, n_vocab: int, kinds: str) -> None:
        values = self.f.get(key, None, "array")
        if values is None:
            return
        if isinstance(values, StringArray) or values.dtype.kind not in kinds:
            self.fail(key, f"must hold {'integers' if kinds == 'iu' else 'floats'}")
        if len(values) != n_vocab:
            self.fail(key, f"has {len(values)} values for a vocabulary of {n_vocab} tokens")
        if kinds == "f" and np.isnan(values).any():
            self.fail(key, "holds a NaN")
        if kinds == "iu" and (values.min() < 0 or values.max() > 6):
            self.fail(key, "holds a type outside 0 to 6")

    def _check_merges(self) -> None:
        key = "tokenizer.ggml.merges"
        if key not in self.f.metadata:
            return
        merges = self._strings(key)
        # The separator is the first space after the first byte (llama.cpp's vocabulary loader).
        if (wrong := merges.without_pair()) is not None:
            self.fail(key, f"item {wrong}, '{printable(merges[wrong])}', is no pair")

    def _check_ids(self, n_vocab: int) -> None:
        for key in self.f.metadata:
            if not (key.startswith("tokenizer.ggml.") and key.endswith("_token_id")):
                continue
            value = self.f.get(key, None, int)
            if 0 <= value < n_vocab or value in (NO_ID, -1):  # both are used for "none"
                continue
            text = f"is {value}, outside the vocabulary of {n_vocab} tokens"
            if key.removeprefix("tokenizer.ggml.").removesuffix("_token_id") not in UNUSED_IDS:
                self.fail(key, text)
            self.warnings.append(f"key '{printable(key)}' {text}")


def _stretch(values: list[int], n: int) -> list[int]:
    return values * n if len(values) == 1 else values
