"""Checkpoints of MLX: codes of 2 to 8 bits under a scale and a bias per group, and small floats.

Layout: mlx.core.quantize and the ``sanitize`` functions of github.com/ml-explore/mlx-lm. A row's
codes are one stream of bits in little-endian words, the lowest first; experts lie in one stack.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np

from ggq.converters.formats.base import Decoded, Pieces, expect_shape
from ggq.converters.formats.floats import Fours, eights
from ggq.converters.formats.integers import Coded, Integers, unpack
from ggq.converters.safetensors import FLOATS
from ggq.errors import FormatError, ModelError, printable

__all__ = ["FORMAT", "METHOD", "is_mlx"]

METHOD = "mlx"
WHERE = "config.json: quantization"
BITS, GROUPS = (2, 3, 4, 5, 6, 8), (32, 64, 128)
SMALL_FLOATS = {  # mode -> (bits, columns under a scale, type of the scales)
    "mxfp4": (4, 32, "F8_E8M0"),
    "mxfp8": (8, 32, "F8_E8M0"),
    "nvfp4": (4, 16, "F8_E4M3"),
}
STACK = ".switch_mlp."
# What the matrices of an expert are called in checkpoints whose layers call them by numbers.
NUMBERED = {"gate_proj": "w1", "down_proj": "w2", "up_proj": "w3"}
NUMBERED_IN = (".block_sparse_moe", ".feed_forward")
CONVOLUTIONS = (".conv1d.weight", ".conv.weight")
# mlx-lm stores these of Qwen3-Next and Qwen3.5 as what they multiply by: one more than elsewhere.
DELTA = ".linear_attn.conv1d.weight"
RAISED = (
    *(".input_layernorm.weight", ".post_attention_layernorm.weight"),
    *("model.norm.weight", ".q_norm.weight", ".k_norm.weight"),
)


def is_mlx(settings: object) -> bool:
    """Tell whether ``quantization`` of config.json is MLX's."""
    return isinstance(settings, Mapping) and {"group_size", "bits"} <= settings.keys()


@dataclass(frozen=True)
class Layout:
    """How a module is packed: ``mode``, bits of a code, columns under one scale."""

    mode: str
    bits: int
    group: int


@dataclass(frozen=True)
class Lowered:
    """A vector whose every value is one less than the stored one."""

    whole: Any
    dtype: str = "F32"

    @property
    def name(self) -> str:
        return str(self.whole.name)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.whole.shape)

    def read(self, rows: Any) -> np.ndarray:
        return np.asarray(self.whole.read(rows) - np.float32(1))


class MLX:
    """Modules of ``weight`` uint32 (rows, words), ``scales`` and, if affine, ``biases``."""

    methods = (METHOD,)
    beside = None

    def check(self, settings: Mapping[str, Any]) -> None:
        """Refuse modes, sizes of groups and bits that MLX has not; ModelError."""
        _layout(settings, "")
        for module, own in settings.items():
            if isinstance(own, Mapping):
                _layout({**settings, **own}, f".{printable(module)}")

    def decode(self, pieces: Pieces, settings: Mapping[str, Any]) -> None:
        for module in list(pieces.modules(".scales")):
            own = settings.get(module)
            layout = _layout({**settings, **own} if isinstance(own, Mapping) else settings, "")
            _module(pieces, module, layout)
        for name, stored in pieces.tensors.items():
            if stored.dtype == "U32" and name.endswith(".weight"):
                pieces.take(f"{name.removesuffix('weight')}scales", of=name)
        raised = any(DELTA in name and _laid_out(t) for name, t in pieces.tensors.items())
        tensor: Any
        for name, tensor in list(pieces.tensors.items()):
            if STACK in name and name.endswith(".weight") and tensor.dtype in FLOATS:
                del pieces.tensors[name]
                _unstack(pieces, name, tensor)
            elif name.endswith(CONVOLUTIONS) and _laid_out(tensor):
                channels, width, _ = tensor.shape
                pieces.tensors[name] = replace(tensor, shape=(channels, 1, width))
            elif raised and name.endswith(RAISED) and len(tensor.shape) == 1:
                pieces.tensors[name] = Lowered(tensor)


def _laid_out(tensor: Any) -> bool:
    """Tell whether a convolution's weights lie as MLX has them: (channels, width, 1)."""
    return len(tensor.shape) == 3 and tensor.shape[1] > 1 and tensor.shape[2] == 1


def _layout(settings: Mapping[str, Any], module: str) -> Layout:
    """Return how weights are packed; ModelError: a mode, bits or a group that is not MLX's."""
    mode = settings.get("mode") or "affine"
    bits, group = settings.get("bits"), settings.get("group_size")
    where = f"{WHERE}{module}: MLX {printable(str(mode))}"
    if mode == "affine":
        if bits not in BITS or group not in GROUPS:
            what = f"with {printable(repr(bits))} bits in groups of {printable(repr(group))}"
            raise ModelError(f"{where} {what} is not supported, only bits {BITS}, groups {GROUPS}")
        return Layout(mode, int(bits), int(group))
    if not isinstance(mode, str) or mode not in SMALL_FLOATS:
        raise ModelError(f"{where} is not supported, only affine, {', '.join(SMALL_FLOATS)}")
    return Layout(str(mode), *SMALL_FLOATS[str(mode)][:2])


def _module(pieces: Pieces, module: str, layout: Layout) -> None:
    """Put a module's weight, or those of all experts of a stack."""
    name = f"{module}.weight"
    affine = layout.mode == "affine"
    scales = pieces.take(f"{module}.scales", *(FLOATS if affine else ("U8",)), of=name)
    stored = pieces.take(name, "U32", of=scales.name)
    parts = [stored, scales]
    if affine:
        parts.append(pieces.take(f"{module}.biases", scales.dtype, of=name))
    stacked = STACK in name and len(stored.shape) == 3
    if len(stored.shape) != 2 + stacked or not all(stored.shape):
        raise FormatError(f"tensor {printable(name)} has shape {stored.shape}, no matrix")
    *n_expert, rows, words = stored.shape
    columns, rest = divmod(words * 32, layout.bits)
    if rest or columns % layout.group:
        what = f"{words} words are no groups of {layout.group} codes of {layout.bits} bits"
        raise FormatError(f"tensor {printable(name)}: {what}")
    for part in parts[1:]:
        expect_shape(part, (*n_expert, rows, columns // layout.group))
    if not stacked:
        pieces.put(_matrix(name, parts, layout))
        return
    for i in range(n_expert[0]):
        pieces.put(_matrix(_expert(name, i), [_slice(part, i) for part in parts], layout))


def _unstack(pieces: Pieces, name: str, tensor: Any) -> None:
    """Put the experts of a stack of plain floats one by one."""
    if len(tensor.shape) != 3 or not all(tensor.shape):
        raise FormatError(f"tensor {printable(name)} has shape {tensor.shape}, no experts")
    for i in range(tensor.shape[0]):
        one = _slice(tensor, i)
        called = _expert(name, i)
        pieces.tensors[called] = replace(one, name=called)


def _slice(stored: Any, i: int) -> Any:
    """Return the i-th matrix of a stack as a stored tensor of its own."""
    shape = stored.shape[1:]
    size = stored.stored().itemsize * prod(shape)
    return replace(stored, shape=shape, start=stored.start + i * size)


def _expert(name: str, i: int) -> str:
    """Return what an expert's matrix is called outside MLX."""
    parent, _, rest = name.partition(STACK)
    matrix, _, kind = rest.partition(".")
    if parent.endswith(NUMBERED_IN):
        matrix = NUMBERED.get(matrix, matrix)
    return f"{parent}.experts.{i}.{matrix}.{kind}"


def _matrix(name: str, parts: list[Any], layout: Layout) -> Decoded:
    stored, scales, *rest = parts
    rows, words = stored.shape
    if layout.mode != "affine":
        scales = replace(scales, dtype=SMALL_FLOATS[layout.mode][2])
        kind = "U8" if layout.bits == 4 else "F8_E4M3"
        stored = replace(stored, dtype=kind, shape=(rows, words * 4))
        if layout.bits == 4:
            return Fours(name, stored, scales)
        return eights(name, stored, scales, None)
    biases = rest[0]
    coded = Coded(
        layout.bits,
        layout.group,
        lambda chosen: unpack(stored.stored()[chosen], layout.bits),
        scales.read,
        0,
        biases=biases.read,
        half=scales.dtype == "F16",
    )
    return Integers(name, (rows, words * 32 // layout.bits), coded)


FORMAT = MLX()
