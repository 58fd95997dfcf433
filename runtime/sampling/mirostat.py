"""Mirostat 1 and 2 (Basu et al. 2021): sampling that steers the surprise of the text to a target.

Keeps the running estimate ``mu`` between tokens; picks the token itself instead of leaving it to
the draw at the chain's end.
"""

import numpy as np

from ggq.runtime.sampling.candidates import Candidates, draw, softmax

_FITTED = 100  # likeliest tokens used to estimate Zipf's exponent (the paper's m)


class Mirostat:
    """State of one sequence: ``mu`` starts at twice the target surprise ``tau`` (bits)."""

    def __init__(self, version: int, tau: float, eta: float, n_vocab: int) -> None:
        """Take the version (1 or 2), target surprise, learning rate and vocabulary size."""
        self.version, self.tau, self.eta, self.n_vocab = version, tau, eta, n_vocab
        self.mu = self._previous = 2.0 * tau

    def pick(self, c: Candidates, rng: np.random.Generator) -> int:
        """Return the position drawn in ``c.sorted()`` and move ``mu`` towards the target."""
        ordered = c.sorted()
        keep = self._cut(ordered) if self.version == 1 else self._surprise_cut(ordered)
        kept = softmax(ordered.logits[: max(1, min(keep, len(ordered)))])
        position = draw(kept, rng)
        self._previous = self.mu
        self.mu -= self.eta * (-float(np.log2(kept[position])) - self.tau)
        return position

    def undo(self) -> None:
        """Forget the last pick: its token was refused."""
        self.mu = self._previous

    def _cut(self, ordered: Candidates) -> int:
        """Estimate Zipf's exponent from the head and return k for the wanted surprise."""
        head = softmax(ordered.logits)[:_FITTED].astype(np.float64)
        head = head[head > 0]
        if len(head) < 2:
            return 1
        rank_ratio = np.log(np.arange(2, len(head) + 1) / np.arange(1, len(head)))
        log_ratio = np.log(head[:-1] / head[1:])
        exponent = float((rank_ratio @ log_ratio) / (rank_ratio @ rank_ratio))
        excess = exponent - 1.0
        with np.errstate(all="ignore"):  # flat or very steep heads give inf or nan: keep all or one
            fraction = excess * np.exp2(self.mu) / (1.0 - np.float64(self.n_vocab) ** -excess)
            k = np.float64(fraction) ** (1.0 / np.float64(exponent))
        return int(k) if np.isfinite(k) else len(ordered)

    def _surprise_cut(self, ordered: Candidates) -> int:
        """Return how many of the likeliest tokens have a surprise of at most ``mu`` bits."""
        with np.errstate(divide="ignore"):
            surprise = -np.log2(softmax(ordered.logits))
        above = np.flatnonzero(surprise > self.mu)
        return int(above[0]) if len(above) else len(ordered)
