"""What a drafter is: for one answer it makes a guesser, which guesses how the tokens go on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

__all__ = ["Draft", "Drafter", "Guesser"]


@dataclass(frozen=True)
class Draft:
    """Guessed tokens, and for each how sure the guess is: an index of its drafter's ``prior``."""

    tokens: Sequence[int] = ()
    grades: Sequence[int] = ()


class Guesser(Protocol):
    """Guesses for one answer."""

    def guess(self, ids: list[int], limit: int) -> Draft:
        """Return up to ``limit`` tokens that may follow ``ids``, the prompt and the answer so far.

        ``ids`` only grow from call to call.
        """

    def close(self) -> None:
        """Give back what it holds: the answer has ended."""


class Drafter(Protocol):
    """Makes guessers, one for each answer."""

    @property
    def prior(self) -> Sequence[float]:
        """For each grade, the chance that a token is right, as long as nothing was measured."""

    @property
    def thinks(self) -> bool:
        """Whether a guess itself takes time: it is asked for where it is likely used."""

    def start(self) -> Guesser:
        """Return a guesser for a new answer."""

    def close(self) -> None:
        """Give back everything."""
