"""Weights in files of torch (.bin, .pth, .pt), opened as safetensors are: mapped, read in slabs.

Torch reads them with ``weights_only=True``, which makes tensors and nothing else of a pickle, and
never otherwise. The one file of this folder that needs torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ggq.converters.safetensors import StoredTensor, open_regular
from ggq.errors import GIT_LFS, FormatError, ModelError, pointer_error, printable, reason
from ggq.extras import how_to_install

__all__ = ["PickledFile"]

DTYPES = {  # torch's names -> those of safetensors
    **{"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16"},
    **{"int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL"},
    **{"float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2", "float8_e8m0fnu": "F8_E8M0"},
}
INSIDE = ("state_dict", "model_state_dict", "model", "module")  # where trainers put the weights
NO_WEIGHTS = ("_extra_state",)  # what modules keep beside their tensors


class Memory:
    """The bytes of one tensor, copied (once) only where torch holds them in another order."""

    def __init__(self, tensor: Any) -> None:
        self._tensor = tensor

    @cached_property
    def buffer(self) -> np.ndarray:
        import torch

        whole = self._tensor.detach().contiguous().reshape(-1)
        return np.asarray(whole.view(torch.uint8).numpy())


class PickledFile:
    """One open file; ``tensors`` maps names to `StoredTensor`, ``note`` says where they lay.

    ModelError: torch is not there, or the file holds code; FormatError names what is wrong.
    """

    def __init__(self, path: Path) -> None:
        self._where = printable(path.name)
        self.note: str | None = None
        held = self._weights(self._load(path))
        self.tensors = {name: self._stored(name, tensor) for name, tensor in held}

    def close(self) -> None:
        """Let go of the tensors, and with the last one of the mapped file."""
        self.tensors = {}

    def _load(self, path: Path) -> Any:
        try:
            import torch
        except ImportError:
            what = f"{self._where}: pickled weights are read with torch, which is not installed"
            raise ModelError(f"{what}: {how_to_install('torch')}") from None
        import pickle

        try:
            with open_regular(path) as file:
                if file.read(len(GIT_LFS)) == GIT_LFS:
                    raise pointer_error(path)
            try:
                return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            except RuntimeError as error:
                if "mmap" not in str(error):  # of before torch 1.6: not a zip, it cannot be mapped
                    raise
                return torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            what = f"{self._where}: holds code or objects besides tensors, which is never run"
            named = str(error).partition("GLOBAL ")[2].split()[:1]
            which = f" ({printable(named[0], 80)})" if named else ""
            raise ModelError(f"{what}{which}: save the model as safetensors") from None
        except (OSError, RuntimeError, EOFError, ValueError, KeyError, TypeError) as error:
            raise FormatError(f"{self._where}: cannot be read: {reason(error)}") from None

    def _weights(self, loaded: Any) -> Iterator[tuple[str, Any]]:
        """Yield (name, tensor) of a file's weights, wherever a trainer put them; FormatError."""
        import torch

        if not isinstance(loaded, Mapping):
            raise FormatError(f"{self._where}: holds no named tensors")
        if not any(isinstance(value, torch.Tensor) for value in loaded.values()):
            found = [k for k in INSIDE if isinstance(loaded.get(k), Mapping)]
            if len(found) != 1:
                named = printable(", ".join(map(str, loaded)), 120)
                what = f"{self._where}: holds no named tensors"
                raise FormatError(f"{what}, only {named or 'nothing'}")
            self.note = f"{self._where}: the weights are those under {found[0]!r}, the rest is left"
            loaded = loaded[found[0]]
        for name, value in loaded.items():
            if isinstance(value, torch.Tensor) and isinstance(name, str):
                yield name, value
            elif not str(name).endswith(NO_WEIGHTS):
                kind = type(value).__name__
                raise FormatError(f"{self._where}: {printable(name)} is a {kind}, no tensor")

    def _stored(self, name: str, tensor: Any) -> StoredTensor:
        if not tensor.numel():
            raise FormatError(f"{self._where}: tensor {printable(name)} is empty")
        kind = str(tensor.dtype).removeprefix("torch.")
        if _repeats(tensor):
            raise FormatError(
                f"{self._where}: tensor {printable(name)} repeats few values in memory"
            )
        dense = str(tensor.layout) == "torch.strided" and tensor.device.type == "cpu"
        if kind not in DTYPES or not dense:
            form = kind if dense else f"{tensor.layout} on {tensor.device.type}"
            raise FormatError(f"{self._where}: tensor {printable(name)} is {printable(form)}")
        return StoredTensor(name, DTYPES[kind], tuple(tensor.shape), 0, Memory(tensor))


def _repeats(tensor: Any) -> bool:
    """Tell whether a tensor is larger than its memory: a file of bytes may say terabytes."""
    strided = str(tensor.layout) == "torch.strided" and tensor.device.type == "cpu"
    return strided and tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes()
