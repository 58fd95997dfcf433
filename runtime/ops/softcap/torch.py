"""softcap in torch."""

import torch


def run(backend, x, cap):
    """Return cap * tanh(x / cap)."""
    return cap * torch.tanh(x / cap)
