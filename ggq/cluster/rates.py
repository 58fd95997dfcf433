"""What each node does in a second, and the most memory that it took, for people to read."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

__all__ = ["Rates"]


class Rates:
    """Counts work by node from now on, in units of ``scale``: ``unit`` "lines", "MB"."""

    def __init__(self, unit: str, scale: float = 1.0) -> None:
        self.unit, self.scale = unit, scale
        self._done: Counter[str] = Counter()
        self._peaks: dict[str, int] = {}
        self._started = time.monotonic()

    def add(self, node: str, n: int, peak: int = 0) -> None:
        """Count ``n``, and bytes of memory that a process of the node has taken at most."""
        self._done[node] += n
        self._peaks[node] = max(peak, self._peaks.get(node, 0))

    def __str__(self) -> str:
        seconds = self._seconds()
        several = self._done.most_common(4)
        return ", ".join(f"{node} {n / self.scale / seconds:.2f}/s" for node, n in several)

    def tell(self, tell: Callable[[str], None]) -> None:
        """Say what each node did."""
        seconds = self._seconds()
        for node, n in self._done.most_common():
            peak = self._peaks[node]
            memory = f", {peak / 1e6:.0f} MB of memory a process at most" if peak else ""
            done = n / self.scale
            what = f"{node}: {done:.0f} {self.unit}, {done / seconds:.2f} a second"
            tell(what + memory)

    def _seconds(self) -> float:
        return max(time.monotonic() - self._started, 1e-9)
