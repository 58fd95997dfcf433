"""llama.cpp's eyes in float64: exact but for what it holds in halves; no tests here.

It looks GELU up in a table of halves, always in its tanh form; its convolutions make halves of
patches and weights, and so do products with matrices of halves of what enters them.
"""

import numpy as np

from ggq.runtime.backends.reference import ReferenceOps
from ggq.runtime.ops.activate import reference as activate

FROM_TABLES = {"gelu": "gelu_tanh", "gelu_tanh": "gelu_tanh", "gelu_quick": "gelu_quick"}
ENDS = 10  # beyond them GELU's table is not asked


def half(x):
    """Return x rounded to halves, float64."""
    return np.asarray(x, np.float16).astype(np.float64)


class Exact(ReferenceOps):
    """A tower in float64."""

    def rows(self, eyes, pixels):
        """Return what a view becomes, (tokens, (1 + deeper layers) * width); ``pixels``: Eyes'."""
        tower, sight, size = eyes.tower, eyes.sight, pixels.shape[1:]
        self.picture = tower.patches(sight, pixels)
        found = tower.forward(self, sight, sight.view(*size))
        return found if sight.deepstack else tower.finish(self, sight, found, sight.grid(*size))


class Halved(Exact):
    """The same with llama.cpp's halves."""

    def activate(self, x, kind):
        if kind not in FROM_TABLES:
            return activate.run(self, x, kind)
        found = half(activate.KINDS[FROM_TABLES[kind]](half(x)))
        if kind == "gelu_quick":
            return found
        return np.where(x <= -ENDS, 0.0, np.where(x >= ENDS, x, found))

    def gate(self, gate, up, kind="silu"):
        return self.activate(gate, kind) * up

    def array(self, name):
        return half(super().array(name)) if "patch_embd.weight" in name else super().array(name)

    def linear(self, x, name, bias=None, rows=None):
        halves = "patch_embd" in name or self.weight(name).type.name == "F16"
        y = (half(x) if halves else x) @ self.array(name)[slice(*rows or (None,))].T
        return y if bias is None else y + self.array(bias)[slice(*rows or (None,))]
