"""Torch's devices by name, and the memory they have left; no model."""

from __future__ import annotations

import os

import torch

from ggq.errors import UsageError

__all__ = ["find_device", "free_bytes", "has_mps"]


def has_mps() -> bool:
    """Return whether torch can use the GPU of this Mac."""
    return torch.backends.mps.is_available()


def find_device(name: str) -> torch.device:
    """Return a torch device by name, cuda:1 included; UsageError where this machine has none."""
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError):  # torch without CUDA asserts
        raise UsageError(
            f"device {name}: torch {torch.__version__} finds none on this machine"
        ) from None
    return device


def free_bytes(device: torch.device) -> int:
    """Return the bytes that the device can still give; 0 where it does not tell."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # Windows, macOS
        return 0
