"""What differs between two GGUF files: keys, tensors, types, weights in numbers, the template.

Weights are decoded in slabs, so files of different types compare; nothing is judged.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from math import sqrt
from typing import Any

import numpy as np

from ggq import quants
from ggq.gguf import GGUFFile, TensorInfo
from ggq.gguf.encode import copy_value
from ggq.gguf.summary import plain_value

__all__ = ["Difference", "TensorDifference", "diff"]

SLAB_ELEMENTS = 1 << 20
TEMPLATE = "tokenizer.chat_template"


@dataclass(frozen=True)
class TensorDifference:
    """A tensor of both files: its types and the error of the second one's weights.

    ``relative``: root of the mean squared difference over that of the first one's weights;
    ``largest``: the largest difference. Both None where they cannot be compared.
    """

    name: str
    types: tuple[str, str]
    shapes: tuple[tuple[int, ...], tuple[int, ...]]
    relative: float | None = None
    largest: float | None = None


@dataclass
class Difference:
    """``keys``: key -> its plain values, None where it is missing; names of one file alone."""

    keys: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    only_first: list[str] = field(default_factory=list)
    only_second: list[str] = field(default_factory=list)
    tensors: list[TensorDifference] = field(default_factory=list)
    template: list[str] = field(default_factory=list)
    n_same: int = 0  # tensors whose type and bytes are equal

    def as_dict(self) -> dict[str, Any]:
        """Return what ``--json`` prints."""
        rows = [
            {
                "name": t.name,
                "types": list(t.types),
                "shapes": [list(s) for s in t.shapes],
                "relative_rms": t.relative,
                "max": t.largest,
            }
            for t in self.tensors
        ]
        return {
            "metadata": {k: list(v) for k, v in self.keys.items()},
            "only_in_first": self.only_first,
            "only_in_second": self.only_second,
            "same_tensors": self.n_same,
            "tensors": rows,
            "template": self.template,
        }


def diff(first: GGUFFile, second: GGUFFile) -> Difference:
    """Compare two open files."""
    found = Difference(template=_template(first, second))
    for key in dict.fromkeys((*first.metadata, *second.metadata)):
        files = [f.metadata for f in (first, second)]
        a, b = (copy_value(m, key) if key in m else None for m in files)
        if a != b:
            shown = [plain_value(m[key]) if key in m else None for m in files]
            found.keys[key] = shown[0], shown[1]
    found.only_first = [n for n in first.tensors if n not in second.tensors]
    found.only_second = [n for n in second.tensors if n not in first.tensors]
    for name in first.tensors:
        if name in second.tensors:
            one = _compared(first, second, name)
            if one is None:
                found.n_same += 1
            else:
                found.tensors.append(one)
    return found


def _template(first: GGUFFile, second: GGUFFile) -> list[str]:
    old, new = (str(f.metadata.get(TEMPLATE, "")).splitlines() for f in (first, second))
    names = str(first.path), str(second.path)
    return list(difflib.unified_diff(old, new, *names, lineterm=""))


def _compared(first: GGUFFile, second: GGUFFile, name: str) -> TensorDifference | None:
    """Return the difference of a tensor; None where type, shape and bytes are equal."""
    a, b = first.tensors[name], second.tensors[name]
    types, shapes = (a.type_name, b.type_name), (a.shape, b.shape)
    if a.shape != b.shape or not {*types} <= {kind.name for kind in quants.all()}:
        same = types[0] == types[1] and shapes[0] == shapes[1]
        same = same and np.array_equal(first.data(name), second.data(name))
        return None if same else TensorDifference(name, types, shapes)
    found = _errors(first, second, a, b)
    return None if found is None else TensorDifference(name, types, shapes, *found)


def _errors(
    first: GGUFFile, second: GGUFFile, a: TensorInfo, b: TensorInfo
) -> tuple[float, float] | None:
    """Return relative RMS and largest difference; None where the bytes are equal."""
    kinds = quants.by_id(a.type_id), quants.by_id(b.type_id)
    squares, power, largest, same = 0.0, 0.0, 0.0, a.type_id == b.type_id
    step = max(1, SLAB_ELEMENTS // a.shape[-1])
    for start in range(0, a.n_rows, step):
        old, new = (f.data(a.name)[start : start + step] for f in (first, second))
        same = same and np.array_equal(old, new)
        x, y = kinds[0].dequantize(old), kinds[1].dequantize(new)
        delta = (x - y).ravel()
        largest = max(largest, float(np.abs(delta).max()))
        squares += float(np.square(delta, dtype=np.float64).sum())
        power += float(np.square(x, dtype=np.float64).sum())
    for f in (first, second):
        f.release(a.name)
    if same:
        return None
    return (sqrt(squares / power) if power else float(squares > 0)), largest
