"""Types per tensor for a number of bytes or a divergence: weighed on a text, tried and measured.

A divergence is kept to by making files until the smallest that has it is found. How a file is
made and measured, its caller says.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import exp, log
from typing import Any

from ggq.converters.calibration.text import calibrate
from ggq.converters.conversion import Conversion, Progress
from ggq.converters.prepasses import allocation
from ggq.converters.prepasses.allocation import Choice
from ggq.errors import UsageError

__all__ = ["Trial", "Weighed", "guessed", "smallest", "weighed"]

TOKENS, WINDOWS = 256, 8  # of the text that types are weighed on
TRIES = 6
AIM, ENOUGH = 0.97, 0.94  # of the divergence asked for: what a try aims at, what ends the search
TINY = 1e-9  # a divergence, where none was measured
CLOSE = 0.005  # of the bytes: files nearer to each other are not told apart


@dataclass(frozen=True)
class Weighed:
    """What every type costs every tensor whose type is open, and the mixture's own types.

    ``fixed``: bytes of a file without these tensors.
    """

    choices: dict[str, list[Choice]]
    plain: dict[str, str]
    fixed: int

    def types(self, file_bytes: int) -> dict[str, str]:
        """Return the types of least cost for a file of at most ``file_bytes``."""
        return allocation.allocate(self.choices, file_bytes - self.fixed, self.plain)

    def nbytes(self, types: dict[str, str]) -> int:
        """Return the bytes of a file with ``types``, its keys at their longest."""
        return self.fixed + sum(self._chosen(types, "nbytes"))

    def cost(self, types: dict[str, str]) -> float:
        """Return the divergence that ``types`` are estimated to cause, nats a token."""
        return sum(self._chosen(types, "cost"))

    def _chosen(self, types: dict[str, str], what: str) -> list[Any]:
        pairs = ((self.choices[name], kind) for name, kind in types.items())
        return [getattr(c, what) for cs, kind in pairs for c in cs if c.type_name == kind]

    @property
    def least(self) -> int:
        """Bytes of the smallest file."""
        return self.fixed + sum(min(c.nbytes for c in cs) for cs in self.choices.values())

    @property
    def most(self) -> int:
        """Bytes of the largest file."""
        return self.fixed + sum(max(c.nbytes for c in cs) for cs in self.choices.values())


def weighed(
    job: Conversion,
    text: Any,
    light: bool,
    size: int | None = None,
    progress: Progress | None = None,
) -> Weighed:
    """Weigh the types of a planned conversion on ``text`` (None: what comes with ggq).

    ``light``: types that want importance, too. UsageError, before anything is measured, where no
    file of ``size`` bytes is possible.
    """
    fixed = allocation.fixed_bytes(job, light, size)
    windows = calibrate(job, text, TOKENS, WINDOWS, spread=True, starts=True)
    found = allocation.costs(job, windows, light, progress)
    plain = {name: kind for name, kind in job.plan.types if name in found}
    return Weighed(found, plain, fixed)


@dataclass(frozen=True)
class Trial:
    """A file that was made and measured: its types, their estimated ``cost`` and its ``kld``."""

    types: dict[str, str]
    nbytes: int
    cost: float
    kld: float


def smallest(found: Weighed, kld: float, attempt: Callable[[dict[str, str]], float]) -> Trial:
    """Return the smallest file whose measured divergence is at most ``kld``.

    ``attempt`` makes a file of such types and returns its divergence, nats a token. Method: the
    logarithm of what is measured is taken to be linear in that of what is estimated, of slope 1
    until two files are known. UsageError where the largest file does not reach it.
    """
    trials: list[Trial] = []
    low, high = found.least, found.most
    for number in range(TRIES):
        wanted = _estimate_for(trials, AIM * kld)
        size = _size_of(found, wanted, low, high)
        if number == TRIES - 1 and all(t.kld > kld for t in trials):
            size = found.most  # the last chance
        types = found.types(size)
        if any(t.types == types for t in trials):  # the estimate leads nowhere new: halve
            types = found.types((low + high) // 2)
            if any(t.types == types for t in trials):
                break
        nbytes = found.nbytes(types)
        one = Trial(types, nbytes, found.cost(types), attempt(types))
        trials.append(one)
        if one.kld <= kld:
            high = min(high, nbytes)
        else:
            low = max(low, nbytes + 1)
        if ENOUGH * kld <= one.kld <= kld or high - low < CLOSE * high:
            break
    reached = [t for t in trials if t.kld <= kld]
    if not reached:
        best = min(trials, key=lambda t: t.kld)
        raise UsageError(
            f"a divergence of {kld:g} is out of reach: a file of {best.nbytes} bytes has "
            f"{best.kld:.3g}; ask for more than that, or calibrate more: --quality best"
        )
    return min(reached, key=lambda t: t.nbytes)


def guessed(found: Weighed, kld: float) -> dict[str, str]:
    """Return the types of the smallest file that is estimated to keep to ``kld``."""
    return found.types(_size_of(found, AIM * kld, found.least, found.most))


def _estimate_for(trials: list[Trial], kld: float) -> float:
    """Return the estimate at which a divergence of ``kld`` is to be expected."""
    points = [(log(max(t.cost, TINY)), log(max(t.kld, TINY))) for t in trials]
    if not points:
        return kld
    points.sort(key=lambda p: abs(p[1] - log(kld)))
    (cost, found), *others = points
    others.sort(key=lambda p: (p[1] > log(kld)) == (found > log(kld)))  # of the other side first
    slope = 1.0
    if others and others[0][0] != cost:
        slope = min(max((others[0][1] - found) / (others[0][0] - cost), 0.3), 3.0)
    return exp(min(cost + (log(kld) - found) / slope, 100.0))


def _size_of(found: Weighed, cost: float, low: int, high: int) -> int:
    """Return the bytes of the smallest file from ``low`` to ``high`` of at most that estimate."""
    while high - low > max(1, CLOSE / 4 * high):
        middle = (low + high) // 2
        if found.cost(found.types(middle)) <= cost:
            high = middle
        else:
            low = middle
    return high if found.cost(found.types(low)) > cost else low
