"""The card in a file: how far its predictions lie from the original's, as keys ``ggq.quality.*``.

Values of fixed width hold the place until the file is written and measured, so that sizes planned
beforehand are true. How predictions are compared is `predictions.py`'s.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ggq.converters.conversion import CARD_KEYS, Conversion
from ggq.converters.metadata.general import Item
from ggq.errors import FormatError, ModelError, UsageError, option, printable
from ggq.extras import how_to_install
from ggq.gguf import GGUFFile, GGUFWriter, open_gguf, spec
from ggq.gguf.copy import copy_tensors

__all__ = ["Card", "check_card", "measured", "read_card", "write_card"]

SAME = 0.01  # of a figure: the original's sums depend on torch's threads in their last bits
NEAR_TIES = 0.002  # of the positions: top tokens that such a last bit decides


@dataclass(frozen=True)
class Card:
    """Distances over ``positions`` (KLD in nats); ``held_back``: no pass saw the text.

    ``kld_99`` and ``kld_99_9``: percentiles; ``same_top``: share of equal most likely tokens;
    ``ppl_ratio``: the file's perplexity over the original's. NaN where nothing was measured yet.
    """

    kld: float = math.nan
    kld_99: float = math.nan
    kld_99_9: float = math.nan
    same_top: float = math.nan
    ppl_ratio: float = math.nan
    positions: int = 0
    held_back: bool = False

    def items(self) -> list[Item]:
        """Return the keys, in the order of `CARD_KEYS`."""
        kinds = (*[spec.F32] * 5, spec.U32, spec.BOOL)
        values = vars(self).values()
        return [Item(*one) for one in zip(CARD_KEYS, values, kinds, strict=True)]

    def __str__(self) -> str:
        seen = "held-back" if self.held_back else "calibrated"
        return (
            f"KLD {self.kld:.4f} (99 %: {self.kld_99:.4f}, 99.9 %: {self.kld_99_9:.4f}), "
            f"same top token {self.same_top:.1%}, perplexity x {self.ppl_ratio:.4f}, "
            f"{self.positions:,} {seen} positions"
        )

    def difference(self, other: Card) -> str | None:
        """Return what ``other`` says otherwise, beyond what rounding explains; None where not."""
        for name, ours in vars(self).items():
            theirs = getattr(other, name)
            room = NEAR_TIES if name == "same_top" else SAME * abs(ours) + 1e-6
            exact = name in ("positions", "held_back")
            if ours != theirs if exact else not abs(ours - theirs) <= room:
                return f"{name} is {theirs:.6g}, measured {ours:.6g}"
        return None


def check_card(job: Conversion) -> None:
    """Refuse a card where none can be made, before any work; UsageError."""
    from importlib.util import find_spec

    from ggq.converters.calibration.weights import hparams_of

    flag = option("--card")
    if find_spec("torch") is None:
        raise UsageError(f"{flag}: to run the original, {how_to_install('torch')}")
    if job.options.split_max_bytes is not None:
        raise UsageError(f"{flag}: goes into one file: ggq split afterwards")
    architecture, hp = hparams_of(job)
    if "output.weight" not in {name for name, _, _ in architecture.rows(hp)}:
        raise UsageError(f"{flag}: {job.arch} predicts no tokens that could be compared")


def measured(job: Conversion, path: str | Path, passes: Sequence[Any]) -> tuple[Card, Any]:
    """Return the card of a written file and the comparison that it is made of."""
    from ggq.converters.report.predictions import held_back

    found = held_back(job, path, passes)
    if found is None:
        raise UsageError(f"to run the original, {how_to_install('torch')}")
    figures, tail = found.figures, found.figures["kld_percentiles"]
    numbers = (figures["kld"], tail["99"], tail["99.9"], figures["same_top"], figures["ppl_ratio"])
    if not all(map(math.isfinite, numbers)):
        raise ModelError(f"{printable(path)}: predictions that are not finite have no card")
    return Card(*numbers, found.positions, not found.calibrated), found


def write_card(path: str | os.PathLike[str], card: Card) -> None:
    """Write the card over the one that held its place; the file is whole at any moment."""
    with GGUFWriter(path, force=True) as writer, open_gguf(path) as file:
        writer.copy_metadata(file.metadata)
        for item in card.items():
            writer.add(item.key, item.value, item.type)
        copy_tensors(file, writer)


def read_card(file: GGUFFile) -> Card | None:
    """Return the card of a file, None without one or where it tells of another file.

    llama-quantize carries keys over to what it makes. FormatError where the values are none.
    """
    from ggq.converters.provenance import is_ggqs

    if any(key not in file.metadata for key in CARD_KEYS) or not is_ggqs(file):
        return None
    values = [file.metadata[key] for key in CARD_KEYS]
    for key, value in zip(CARD_KEYS, values, strict=True):
        if isinstance(value, str) or hasattr(value, "__len__"):
            raise FormatError(f"{printable(file.path)}: key {key} must be a number")
    *numbers, positions, held = values
    kld, p99, p99_9, same_top, ratio = map(float, numbers)
    return Card(kld, p99, p99_9, same_top, ratio, int(positions), bool(held))
