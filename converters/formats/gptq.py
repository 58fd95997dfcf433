"""GPTQ checkpoints: codes packed along the inputs, zeros along the outputs, an order of columns.

Layout: AutoGPTQ's QuantLinear.pack and GPTQModel's gptq_v2. Bits, groups and zeros are read from
each module's own tensors, so that settings per module need no rules.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ggq.converters.formats.base import Pieces, Rows, expect_shape, numbers, setting, whole
from ggq.converters.formats.integers import Coded, Integers, pick, same_everywhere, unpack
from ggq.errors import FormatError, ModelError, printable

__all__ = ["FORMAT"]

BITS = (2, 3, 4, 8)


class GPTQ:
    """Modules of ``qweight`` int32 (inputs * bits / 32, outputs), ``qzeros`` and ``scales``.

    ``g_idx`` is the group of each input. v1 stores zeros less one, v2 as they are.
    """

    methods = ("gptq",)
    beside = "quantize_config.json"

    def decode(self, pieces: Pieces, settings: Mapping[str, Any]) -> None:
        stored = settings.get("checkpoint_format") or settings.get("format") or "gptq"
        if settings.get("is_marlin_format"):
            stored = "marlin"
        if stored not in ("gptq", "gptq_v2"):
            raise ModelError(
                f"config.json: GPTQ checkpoint_format {printable(repr(stored))} is not supported, "
                "only gptq and gptq_v2"
            )
        group = setting(settings, "group_size", -1)
        for module in pieces.modules(".qweight"):
            pieces.put(_module(pieces, module, group, less_one=stored == "gptq"))
            pieces.drop_zeros(f"{module}.bias")


def _module(pieces: Pieces, module: str, group: int, less_one: bool) -> Integers:
    name = f"{module}.qweight"
    packed = pieces.take(name, "I32", of=name)
    scales = pieces.take(f"{module}.scales", "F16", "BF16", "F32", of=name)
    qzeros = pieces.take(f"{module}.qzeros", "I32", of=name)
    index = pieces.find(f"{module}.g_idx", "I32", "I64")
    if len(packed.shape) != 2 or len(scales.shape) != 2 or not all(scales.shape):
        raise FormatError(f"tensor {printable(name)} or its scales are no matrix")
    groups, outputs = scales.shape
    bits = 32 * qzeros.shape[-1] // outputs if qzeros.shape else 0
    if bits not in BITS:
        raise FormatError(
            f"tensor {printable(qzeros.name)} of shape {qzeros.shape} for {outputs} outputs: "
            f"{bits} bits, GPTQ has 2, 3, 4 or 8"
        )
    inputs = packed.shape[0] * 32 // bits
    expect_shape(packed, (inputs * bits // 32, outputs))
    expect_shape(qzeros, (groups, outputs * bits // 32))
    group, order = _groups(index, group, groups, inputs, name)
    top, one = (1 << bits) - 1, int(less_one)

    def codes(rows: Rows) -> np.ndarray:
        return unpack(packed.stored()[:, rows].T, bits)

    def zeros(rows: Rows) -> np.ndarray:
        found = pick(qzeros.stored(), numbers(rows, outputs), bits).T
        return ((found + np.uint8(one)) & np.uint8(top)).astype(np.float32)

    same = same_everywhere(qzeros.stored(), bits)
    coded = Coded(
        bits,
        group,
        codes,
        lambda rows: scales.read((slice(None), rows)).T,
        zeros if same is None else (same + one) & top,
        order,
        half=scales.dtype == "F16",
    )
    return Integers(f"{module}.weight", (outputs, inputs), coded)


def _groups(
    index: Any | None, group: int, groups: int, inputs: int, name: str
) -> tuple[int, np.ndarray | None]:
    """Return the columns of a group, and the group of each column where they are out of order."""
    if index is not None:
        expect_shape(index, (inputs,))
        order = whole(index).astype(np.int64)
        if order.min() < 0 or order.max() >= groups:
            raise FormatError(
                f"tensor {printable(index.name)} points outside the {groups} groups of its weight"
            )
        size = int(np.count_nonzero(order == order[0]))
        return (size, None) if (order == np.arange(inputs) // size).all() else (size, order)
    size = inputs if group <= 0 else group
    if -(-inputs // size) != groups:
        raise FormatError(
            f"tensor {printable(name)} has {inputs} inputs in groups of {size}, "
            f"and scales of {groups} groups"
        )
    return size, None


FORMAT = GPTQ()
