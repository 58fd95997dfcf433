"""Blocks as numbers that gradients can move: every value is one that the bytes hold, bit for bit.

Codes and scales are real numbers that are rounded to what is stored; the gradient passes straight
through the rounding (arXiv 1308.3432), codes start where the original weights lie in their cells.
The values are the block type's own ``decode``, run on torch tensors: no type's maths is known here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from ggq.converters.prepasses.solving.solver import integer_range
from ggq.runtime.backends.torch.arrays import TorchArray

__all__ = ["Latent", "LatentVector", "rounded"]

EDGE = 0.49  # codes stay this far within the cell of the first and of the last value
F16_MAX = 65504.0


def rounded(x: torch.Tensor, to: torch.Tensor) -> torch.Tensor:
    """Return ``to`` with the gradient of ``x``."""
    return to.detach() + (x - x.detach())  # in this order it is exactly ``to``


class Latent:
    """The blocks of one matrix, trained; ``origin`` float32 (rows, n) are the original weights.

    ``values()`` is float32 (rows, n), ``blocks()`` the same as bytes. With ``codes`` False only the
    scales move.
    """

    def __init__(
        self, kind: Any, blocks: np.ndarray, origin: np.ndarray | None = None, codes: bool = True
    ):
        self.kind = kind
        params, stored = kind.unpack(blocks)
        self._dtypes = {n: p.dtype for n, p in params.items()}
        self._start = {n: torch.from_numpy(p.astype(np.float32)) for n, p in params.items()}
        self._unit = {n: self._step(n, p) for n, p in self._start.items()}
        self._moved = {n: torch.zeros_like(p) for n, p in self._start.items()}
        self._codes = torch.from_numpy(stored.astype(np.float32))
        self._levels = kind.grid(params).levels
        self.trains_codes = codes
        if codes and origin is not None:
            self._codes += torch.from_numpy(self._within(params, stored, origin))

    def _within(self, params: Any, stored: np.ndarray, origin: np.ndarray) -> np.ndarray:
        """Return where in its cell each weight lay, -0.49 .. 0.49 steps."""
        grid = self.kind.grid(params)
        safe = np.where(grid.scale == 0, np.float32(1), grid.scale)
        place = (origin - grid.values(stored)) / safe
        return np.where(grid.scale == 0, 0, np.clip(place, -EDGE, EDGE)).astype(np.float32)

    def _step(self, name: str, start: torch.Tensor) -> torch.Tensor:
        """Return what a movement of 1 means: its own size for a half, the range for an integer."""
        if self._dtypes[name].kind == "f":
            return start.abs()
        low, high = integer_range(self.kind, name)
        return torch.full_like(start, float(high - low))

    def trained(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield ("codes" or "scales", tensor) for the optimizer."""
        if self.trains_codes:
            yield "codes", self._codes
        for tensor in self._moved.values():
            yield "scales", tensor

    def _params(self) -> dict[str, torch.Tensor]:
        """Return the parameters as they would be stored, float32, gradients passing through."""
        made = {}
        for name, moved in self._moved.items():
            x = self._start[name] + self._unit[name] * moved
            if self._dtypes[name].kind == "f":
                made[name] = rounded(x, x.clamp(-F16_MAX, F16_MAX).half().float())
            else:
                made[name] = rounded(x, x.round().clamp(*integer_range(self.kind, name)))
        return made

    def _rounded_codes(self) -> torch.Tensor:
        return rounded(self._codes, self._codes.round().clamp(0, self._levels - 1))

    def values(self) -> torch.Tensor:
        """Return what the blocks decode to, with gradients to codes and scales."""
        params = {n: TorchArray(p) for n, p in self._params().items()}
        return self.kind.decode(params, TorchArray(self._rounded_codes())).tensor

    @torch.no_grad()
    def blocks(self) -> np.ndarray:
        """Return uint8 (rows, row bytes)."""
        params = {n: p.numpy().astype(self._dtypes[n]) for n, p in self._params().items()}
        return self.kind.pack(params, self._rounded_codes().numpy().astype(np.uint8))

    @torch.no_grad()
    def settle(self) -> None:
        """Keep the codes where they can be stored, after a step of the optimizer."""
        self._codes.clamp_(-EDGE, self._levels - 1 + EDGE)

    def state(self) -> list[torch.Tensor]:
        """Return a copy of what was trained."""
        return [tensor.detach().clone() for _, tensor in self.trained()]

    @torch.no_grad()
    def restore(self, state: list[torch.Tensor]) -> None:
        """Go back to a ``state()``."""
        for (_, tensor), old in zip(self.trained(), state, strict=True):
            tensor.copy_(old)


class LatentVector:
    """A float32 vector that is stored as it is: a norm's gain or a bias."""

    def __init__(self, start: np.ndarray):
        self._start = torch.from_numpy(np.array(start, np.float32))
        self._unit = float(self._start.abs().mean())
        self._moved = torch.zeros_like(self._start)

    def trained(self) -> Iterator[tuple[str, torch.Tensor]]:
        yield "scales", self._moved

    def values(self) -> torch.Tensor:
        return self._start + self._unit * self._moved

    def settle(self) -> None:
        """Nothing: every value can be stored."""

    state, restore = Latent.state, Latent.restore
