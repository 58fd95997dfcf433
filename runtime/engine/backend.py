"""What the engine asks of a back end: a model on one kind of machine that runs steps.

engine/cpu and engine/torch are two. It knows no operation.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

import numpy as np

from ggq.models.hparams import HParams
from ggq.runtime.cache.kvcache import KVCache, Sequence
from ggq.runtime.cache.layout import PAGE, STEP_TOKENS

__all__ = ["Architecture", "Backend", "Glimpse", "Output", "Part", "cache_positions", "step_tokens"]

_MUTUAL_TOKENS = 1120  # of a picture: Gemma 4's largest
TEXTS = 48  # that an encoder can take in one step


class Output(Enum):
    """What a step gives for the tokens that want a row."""

    LOGITS = "logits"
    HIDDEN = "hidden states"  # normed, before the head

    def width(self, hp: HParams) -> int:
        """Return the columns of a row."""
        return hp.n_vocab if self is Output.LOGITS else hp.n_embd


@dataclass(frozen=True)
class Glimpse:
    """The tokens of a picture in a part, from number ``first`` on, and their rows.

    ``rows``: float32 (parts, n, n_embd), the first in the place of embeddings. ``span``: where the
    whole picture begins and ends in the sequence, if its tokens see each other, else 0 and 0.
    """

    first: int
    rows: np.ndarray
    span: tuple[int, int] = (0, 0)

    def __len__(self) -> int:
        return int(self.rows.shape[1])


@dataclass(frozen=True)
class Part:
    """Tokens to append to one sequence in a step; ``wanted``: which of them ask for a row.

    ``types``: which part of a text each is of, such as a query and a document; None: the first.
    ``guesses``: None for a prompt's tokens; of an answer's, how many of the last ones may be wrong
    and taken back (`Sequence.truncate`). ``pictures``: those that some of the tokens are of;
    ``places``: what rotations turn by, (n,), or (n, 3) where pictures have rows and columns; None:
    the tokens' positions.
    """

    sequence: Sequence
    ids: np.ndarray  # int64
    wanted: np.ndarray  # bool
    guesses: int | None = None
    types: np.ndarray | None = None  # int64
    pictures: tuple[Glimpse, ...] = ()
    places: np.ndarray | None = None  # int64

    @property
    def kinds(self) -> np.ndarray:
        """Return the types as they are used, int64."""
        return np.zeros(len(self.ids), np.int64) if self.types is None else self.types

    @property
    def positions(self) -> np.ndarray:
        """Return what rotations turn by, int64 (n,) or (n, 3)."""
        start = self.sequence.length
        own = np.arange(start, start + len(self.ids))
        return own if self.places is None else self.places


def cache_positions(hp: HParams, n_ctx: int) -> int:
    """Return the positions of a cache: an encoder's has pages for many short texts at once."""
    return n_ctx if hp.causal else max(n_ctx, TEXTS * PAGE)


def step_tokens(hp: HParams, n_ctx: int) -> int:
    """Return the most tokens of a step: an encoder's text is evaluated whole.

    Pictures whose tokens see each other are, too.
    """
    if not hp.causal:
        return n_ctx
    return STEP_TOKENS + _MUTUAL_TOKENS if hp.pictures and hp.mutual else STEP_TOKENS


class Backend(Protocol):
    """A model on one kind of machine: its weights, its cache, and the forward pass over both.

    ``max_tokens``: the most tokens of a step. ``profile``: where steps add their nanoseconds by
    kind of operation, for back ends that can tell.
    """

    max_tokens: int
    profile: dict[str, int] | None

    @property
    def cache(self) -> KVCache:
        """The pages and states that sequences take."""

    def run(self, parts: list[Part], output: Output) -> np.ndarray:
        """Evaluate the parts, for whose tokens their sequences have room.

        Returns float32 (wanted tokens, width) in the parts' order. Broken off by an exception it
        leaves the sequences' lengths as they were, their recurrent states undefined.
        """

    def close(self) -> None:
        """Give back threads and memory; no step follows."""


class Architecture(Protocol):
    """What a back end asks of a model (ggq.models.base.Architecture)."""

    def forward(self, ops: Any, hp: HParams) -> Any:
        """Record or compute one evaluation on ``ops``; return the rows of the gathered tokens."""
