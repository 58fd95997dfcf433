"""Heads behind the last layer that predict further tokens (arXiv 2412.19437): tables and settings.

Each is a layer of the model's own kind over the last hidden state and the next token's embedding,
joined by ``eh_proj``. The plain forward pass does not read them; drafts do (`ggq.models.heads`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ggq.models.layers.base import Layer, Part
from ggq.models.table import Key, Tensor, norm, rows

__all__ = [
    "FOUND",
    "HEAD",
    "KEYS",
    "LAYERS",
    "TENSORS",
    "NextN",
    "as_head",
    "counted",
    "number",
    "stored",
]

LAYERS = "model.layers."  # where heads are numbered on behind the layers
FOUND = "_heads"  # a setting: how many heads the checkpoint holds, as the converter counts them
HEAD = "blk.{i}.nextn.eh_proj.weight"  # what every head has


@dataclass(frozen=True)
class NextN(Part):
    """What makes a layer a head: the norms and the weight ahead of it, an embedding, an output."""


def as_head(layer: Layer) -> Layer:
    """Return ``layer`` as a head."""
    return Layer(layer.mixer, layer.feed, (*layer.others, NextN(layer=layer.mixer.layer)))


def stored(source: Any, first: int, count: int) -> int:
    """Return how many of the ``count`` heads behind layer ``first`` the file ``source`` holds."""
    held = (HEAD.format(i=first + j) in source.tensors for j in range(count))
    return count if count and all(held) else 0


def number(name: str, prefix: str) -> int:
    """Return the number behind ``prefix`` in a checkpoint's name, -1 where there is none."""
    found = name.partition(prefix)[2].partition(".")[0]
    return int(found) if found.isdigit() else -1


def counted(names: Iterable[str], prefix: str, first: int) -> int:
    """Return how many heads are among a checkpoint's ``names``.

    They are the layers of ``prefix`` from ``first`` on that have what only heads have, or, where
    heads have a prefix of their own, all of these.
    """
    own = prefix == LAYERS
    numbers = {number(n, prefix) for n in names if not own or n.endswith(".eh_proj.weight")}
    return sum(n >= first for n in numbers)


def _blocks(config: Mapping[str, Any]) -> int:
    return int(config["num_hidden_layers"]) + int(config.get(FOUND) or 0)


KEYS = (
    Key("{arch}.block_count", (), "n_layer", required=True, derive=_blocks),
    Key(
        "{arch}.nextn_predict_layers",
        (),
        "n_nextn",
        default=0,
        derive=lambda config: config.get(FOUND) or None,
    ),
)
OWN: dict[str, Any] = {"part": NextN}
PLAIN: dict[str, Any] = {"part": NextN, "role": "other", "bias": False}
TENSORS: tuple[Tensor, ...] = (
    *rows("nextn.eh_proj", "eh_proj", ("embd", "2*embd"), input="nextn_in", **PLAIN),
    *rows("nextn.embed_tokens", "embed_tokens", ("vocab", "embd"), optional=True, **PLAIN),
    *norm("nextn.enorm", "enorm", **OWN),
    *norm("nextn.hnorm", "hnorm", **OWN),
    *rows("nextn.shared_head_head", "shared_head.head", ("vocab", "embd"), optional=True, **PLAIN),
    *norm("nextn.shared_head_norm", "shared_head.norm", optional=True, **OWN),
)
