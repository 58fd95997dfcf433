"""What a vision tower on one kind of machine is, and a projector's tensors as it reads them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np

from ggq import quants
from ggq.runtime.engine.weights import Tensor, Weights

__all__ = ["PictureWeights", "Progress", "Retina"]

Progress = Callable[[float], None]
TRANSPOSED = ".T"  # behind the name of a matrix whose columns are multiplied


class PictureWeights(Weights):
    """A projector file's tensors: convolutions are matrices, and NAME.T is a matrix transposed."""

    def __getitem__(self, name: str) -> Tensor:
        if name in self._tensors:
            return self._tensors[name]
        plain = name.removesuffix(TRANSPOSED)
        found = super().__getitem__(plain)
        if name != plain:
            turned = np.ascontiguousarray(found.dequantized().T)
            kind = quants.get("F16" if found.type.name == "F16" else "F32")  # halves stay halves
            found = Tensor(name, turned.shape, kind.ggml_id, kind.quantize(turned))
        elif len(found.shape) == 4:
            n = found.shape[0]
            raw = np.ascontiguousarray(found.raw).reshape(n, -1)
            width = int(np.prod(found.shape[1:]))
            found = Tensor(name, (n, width), found.type.ggml_id, raw)
        self._tensors[name] = found
        return found

    def __contains__(self, name: object) -> bool:
        return super().__contains__(str(name).removesuffix(TRANSPOSED))


class Retina(Protocol):
    """A tower on one kind of machine."""

    def run(self, pixels: np.ndarray, progress: Progress | None) -> np.ndarray:
        """Return what the tower's ``forward`` gives of a view, float32."""

    def close(self) -> None:
        """Give back threads and memory."""
