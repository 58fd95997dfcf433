"""Where a model computes: names of devices, checked. Only what is no CPU imports torch."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from ggq.errors import UsageError, printable
from ggq.extras import how_to_install
from ggq.gguf import GGUFFile
from ggq.models.hparams import HParams
from ggq.runtime.cache.kinds import Kind
from ggq.runtime.engine.backend import Architecture, Backend
from ggq.runtime.engine.weights import Weights

__all__ = ["CPU", "WEIGHT_KINDS", "Device", "resolve"]

WEIGHT_KINDS = ("auto", "packed", "f16")
_NAMES = ("auto", "cpu", "mps", "cuda")


@dataclass(frozen=True)
class Device:
    """A device that is there: cpu, mps, cuda or cuda:N, and how it keeps weights."""

    name: str = "cpu"
    weights: str = "auto"

    def backend(
        self,
        architecture: Architecture,
        hp: HParams,
        gguf: GGUFFile,
        *,
        n_ctx: int,
        cache_type: Kind,
        threads: int | None,
        adapters: Sequence[Any] = (),
    ) -> Backend:
        """Return the device's back end for the model of an open GGUF file.

        ``threads`` are the CPU's, None for as many as suit it, and so are ``adapters``. What
        computes is imported here: numba and torch take seconds, and torch may not be installed.
        """
        weights = Weights(gguf, adapters)
        if self.name == "cpu":
            from ggq.runtime.engine.cpu.backend import CPUBackend
            from ggq.runtime.engine.cpu.threads import default_threads

            return CPUBackend(
                architecture,
                hp,
                weights,
                n_ctx=n_ctx,
                n_threads=threads or default_threads(),
                cache_type=cache_type,
                check_unchanged=weights.check_unchanged,
            )
        from ggq.runtime.engine.torch.backend import DeviceBackend
        from ggq.runtime.engine.torch.devices import find_device
        from ggq.runtime.engine.torch.weights import DeviceWeights

        placed = DeviceWeights(weights, find_device(self.name), self.weights, gguf.release)
        return DeviceBackend(architecture, hp, placed, n_ctx=n_ctx, cache_type=cache_type)


CPU = Device()


def resolve(name: str, weights: str = "auto") -> Device:
    """Return the device that ``name`` means here; UsageError where there is none.

    "auto" is the GPU of a Mac where torch is installed, else the CPU. ``weights``: see
    ggq.runtime.engine.torch.weights.
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
        raise UsageError(f"device {name} needs torch: {how_to_install('torch')}")
    from ggq.runtime.engine.torch.devices import find_device

    find_device(name)
    return Device(name, weights)


def _mac_with_gpu() -> bool:
    if sys.platform != "darwin" or find_spec("torch") is None:
        return False
    from ggq.runtime.engine.torch.devices import has_mps

    return has_mps()
