"""How many threads torch has: sums are split by them, so that equal bits take equal numbers."""

from __future__ import annotations

import torch

__all__ = ["threads"]


def threads(n: int | None = None) -> int:
    """Return the number, after it was set to ``n``."""
    if n is not None:
        torch.set_num_threads(n)
    return torch.get_num_threads()
