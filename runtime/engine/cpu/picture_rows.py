"""The rows that a step's pictures bring, where kernels find them: at fixed addresses."""

from __future__ import annotations

import numpy as np

from ggq.runtime.engine.backend import Part

__all__ = ["PictureRows"]

_LANES = 16  # floats that kernels read at a time


class PictureRows:
    """``n_parts`` rows of ``width`` floats for each picture's token of a step.

    Part 0 stands in the place of the token's embedding, later ones are added behind layers.
    """

    def __init__(self, max_tokens: int, n_parts: int, width: int):
        self.n_parts = n_parts
        self._stride = -(-width // _LANES) * _LANES
        # the system gives memory where it is first written to
        self._rows = np.zeros((max_tokens, n_parts, self._stride), np.float32)
        self._tokens = np.zeros(max_tokens, np.int64)

    @property
    def tokens(self) -> int:
        """Address of int64 numbers of the step's tokens that are pictures'."""
        return self._tokens.ctypes.data

    @property
    def place(self) -> tuple[int, int]:
        """Address of the rows, and the bytes from one token's to the next one's."""
        return self._rows.ctypes.data, 4 * self.n_parts * self._stride

    def offset(self, part: int) -> int:
        """Return how many bytes into a token's rows those of ``part`` begin."""
        return 4 * part * self._stride

    def fill(self, parts: list[Part]) -> int:
        """Write the rows of a step; return how many tokens have some."""
        n_seen = n_tokens = 0
        for part in parts:
            for glimpse in part.pictures:
                here = slice(n_seen, n_seen + len(glimpse))
                first = n_tokens + glimpse.first
                self._tokens[here] = np.arange(first, first + len(glimpse))
                rows = glimpse.rows  # (parts, n, width)
                self._rows[here, :, : rows.shape[2]] = rows.transpose(1, 0, 2)
                n_seen += len(glimpse)
            n_tokens += len(part.ids)
        return n_seen
