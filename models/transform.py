"""How tensors of a checkpoint become a file's: maps of rows, columns and values, as data.

The converter knows them by name. Those of one kind of layer part are its file's ``TRANSFORMS``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ggq.models.hparams import HParams

__all__ = ["RowMap", "Transform"]

RowMap = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Transform:
    """``rows(hp, layer, n)``: a map from output rows to input rows; ``values``: applied to float32.

    ``columns(hp)``: the same for columns.

    ``make(config, hp)`` builds a tensor that HF does not store (None: not in this model).
    ``undo_*`` invert for export. ``bind(name, shape, parts)`` makes the source tensor itself, from
    the checkpoint's tensors or, where these are missing, from those that ``stored_as(name)`` lists;
    None where it says nothing.
    ``join(held)`` makes the checkpoint's tensor of those that ``bind`` made of it, in their order.
    ``whole(hp, layer)``: the rows of a source of which ``rows`` takes a part. ``transposes``: what
    ``bind`` makes is a matrix whose columns are the source's rows.
    """

    rows: Callable[[HParams, int, int], RowMap] | None = None
    undo_rows: Callable[[HParams, int, int], RowMap] | None = None
    values: Callable[[np.ndarray], np.ndarray] | None = None
    undo_values: Callable[[np.ndarray], np.ndarray] | None = None
    columns: Callable[[HParams], RowMap] | None = None
    undo_columns: Callable[[HParams], RowMap] | None = None
    make: Callable[[Mapping[str, Any], HParams], np.ndarray | None] | None = None
    bind: Callable[[str, tuple[int, ...], Sequence[Any]], Any] | None = None
    stored_as: Callable[[str], tuple[str, ...]] | None = None
    whole: Callable[[HParams, int], int] | None = None
    transposes: bool = False
    join: Callable[[Sequence[Any]], Any] | None = None
