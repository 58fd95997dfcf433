"""Where a model computes: names of devices, checked. Only what is no CPU imports torch."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from ggq.errors import UsageError, printable

__all__ = ["CPU", "WEIGHT_KINDS", "Device", "resolve"]

WEIGHT_KINDS = ("auto", "packed", "f16")
_NAMES = ("auto", "cpu", "mps", "cuda")


@dataclass(frozen=True)
class Device:
    """A device that is there: cpu, mps, cuda or cuda:N, and how it keeps weights."""

    name: str = "cpu"
    weights: str = "auto"

    def engine(self, architecture: Any, hp: Any, gguf: Any, *, n_ctx: int, cache_type: str) -> Any:
        """Return the engine of a torch device for an open GGUF file."""
        from ggq.runtime.backends.torch.devices import find_device
        from ggq.runtime.backends.torch.engine import TorchEngine
        from ggq.runtime.backends.torch.weights import DeviceWeights
        from ggq.runtime.engine.weights import Weights

        place = find_device(self.name)
        weights = DeviceWeights(Weights(gguf), place, self.weights, gguf.release)
        return TorchEngine(architecture, hp, weights, n_ctx=n_ctx, kind=cache_type)


CPU = Device()


def resolve(name: str, weights: str = "auto") -> Device:
    """Return the device that ``name`` means here; UsageError where there is none.

    "auto" is the GPU of a Mac where torch is installed, else the CPU. ``weights``: see
    ggq.runtime.backends.torch.weights.
    """
    if weights not in WEIGHT_KINDS:
        kinds = ", ".join(WEIGHT_KINDS)
        raise UsageError(f"device weights {printable(weights)}: one of {kinds}")
    if name not in _NAMES and not re.fullmatch("cuda:[0-9]{1,3}", name):
        raise UsageError(f"device {printable(name)}: one of {', '.join(_NAMES)}")
    if name == "auto":
        return Device("mps", weights) if _mac_with_gpu() else CPU
    if name == "cpu":
        return CPU
    if find_spec("torch") is None:
        raise UsageError(f"device {name} needs torch: pip install 'ggq[torch]'")
    from ggq.runtime.backends.torch.devices import find_device

    find_device(name)
    return Device(name, weights)


def _mac_with_gpu() -> bool:
    if sys.platform != "darwin" or find_spec("torch") is None:
        return False
    from ggq.runtime.backends.torch.devices import has_mps

    return has_mps()
