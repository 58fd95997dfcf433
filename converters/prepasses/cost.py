"""What a pass's cost model is given and gives: sizes of the model and the text, work and memory.

How fast a machine is, and so how long it takes, is known in `estimates.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Cost", "Sizes"]


@dataclass(frozen=True)
class Sizes:
    """``matrices``: (rows, columns, in a block) of what is quantized; ``inputs``: their widths.

    ``tied``: the embedding is the output matrix, too.
    """

    matrices: tuple[tuple[int, int, bool], ...]
    inputs: tuple[int, ...]
    tokens: int
    n_ctx: int
    tied: bool

    @property
    def blocks(self) -> int:
        """Weights in the model's blocks."""
        return sum(r * n for r, n, inside in self.matrices if inside)

    @property
    def weights(self) -> int:
        """Weights in all matrices."""
        return sum(r * n for r, n, _ in self.matrices)

    @property
    def widest(self) -> int:
        """The longest side of a matrix in a block."""
        return max(max(r, n) for r, n, inside in self.matrices if inside)

    @property
    def gram(self) -> float:
        """Operations that the second moments of all inputs take: one half of each is multiplied."""
        return sum(1.0 * n * n * self.tokens for n in self.inputs)

    @property
    def shifts(self) -> float:
        """Operations that what the teacher's outputs have over the student's take.

        Of inputs wider than the residual stream it is taken of the outputs, twice as often.
        """
        narrow = min(self.inputs)
        return sum(2.0 * n * min(n, 2 * narrow) * self.tokens for n in self.inputs)

    def forward(self, weights: int) -> float:
        """Return the operations of all tokens through ``weights``, attention included."""
        return 2.0 * self.tokens * (weights + self.n_ctx * sum(self.inputs) / 4)

    def bend(self, tokens: int, group: int) -> Cost:
        """Return what it costs to measure how the loss bends with ``group`` outputs at a time.

        Forward, forward once more and back, the head's part too, and the moments of gradients.
        """
        pairs = sum(r * min(r, group) for r, _, inside in self.matrices if inside)
        through = self.forward(self.blocks) * tokens / self.tokens
        head = 2.0 * tokens * (self.weights - self.blocks)
        words = max((r for r, _, inside in self.matrices if not inside), default=0)
        nbytes = 4.0 * pairs + 16.0 * self.n_ctx * words + 4.0 * self.widest**2
        return Cost(3 * through + 3 * head + 2.0 * tokens * pairs, nbytes)


@dataclass(frozen=True)
class Cost:
    """``operations`` of matrix products, ``nbytes`` of memory at the peak.

    ``encodings``: how many times over the whole model's blocks are searched.
    """

    operations: float
    nbytes: float
    encodings: float = 0.0
