"""A Hugging Face folder opened lazily: config, shards, tensors by name.

It checks every name and size before use and never runs code from the folder; what the tensors mean
is the architecture's business.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ggq.converters import formats
from ggq.converters.formats.base import TensorLike
from ggq.converters.safetensors import SafetensorsFile
from ggq.errors import FormatError, printable, reason
from ggq.models.decoder import POOLING

__all__ = ["Checkpoint", "read_json"]

MAX_JSON = 100_000_000
POOLINGS = {  # llama.cpp's number: sentence-transformers' names, new and old
    1: ("mean", "pooling_mode_mean_tokens"),
    2: ("cls", "pooling_mode_cls_token"),
    3: ("lasttoken", "pooling_mode_lasttoken"),
}


def read_json(path: Path, required: bool = False) -> dict[str, Any]:
    """Return a JSON object, {} where the file is absent and not required; FormatError."""
    if not path.is_file():
        if required:
            raise FormatError(f"{printable(path)}: no such file")
        return {}
    try:
        if path.stat().st_size > MAX_JSON:
            raise FormatError(f"{printable(path)}: larger than {MAX_JSON} bytes")
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FormatError(f"{printable(path)}: cannot read: {reason(error)}") from None
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{printable(path)}: is not JSON: {reason(error)}") from None
    if not isinstance(value, dict):
        raise FormatError(f"{printable(path)}: is not a JSON object")
    return value


class Checkpoint:
    """``folder`` with config.json and safetensors shards; ``tensors`` maps HF names to views.

    Quantized weights are one tensor each, decoded as it is read; ``quantization`` names the method.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.config = read_json(self.folder / "config.json", required=True)
        self.config |= _pooling(self.folder)
        self.files: list[SafetensorsFile] = []
        self.tensors: dict[str, TensorLike] = {}
        for path in self._shards():
            file = SafetensorsFile(path)
            self.files.append(file)
            twice = self.tensors.keys() & file.tensors.keys()
            if twice:
                raise FormatError(f"tensor {printable(min(twice))} is in two shards")
            self.tensors.update(file.tensors)
        found = formats.quantization(self.config, lambda name: read_json(self.folder / name))
        self.quantization = None if found is None else found[0]
        self.tensors = formats.decoded(self.tensors, found)

    def _shards(self) -> list[Path]:
        index = read_json(self.folder / "model.safetensors.index.json")
        if index:
            return self._indexed(index.get("weight_map"))
        single = self.folder / "model.safetensors"
        if single.is_file():
            return [single]
        found = sorted(self.folder.glob("*.safetensors"))
        if len(found) == 1:
            return found
        if found:
            raise FormatError(f"{printable(self.folder)}: {len(found)} shards and no index")
        pickled = any(self.folder.glob("*.bin")) or any(self.folder.glob("*.pt*"))
        hint = "; pickled weights are not read, save them as safetensors" if pickled else ""
        raise FormatError(f"{printable(self.folder)}: no safetensors file{hint}")

    def _indexed(self, weight_map: object) -> list[Path]:
        where = "model.safetensors.index.json"
        if not isinstance(weight_map, dict) or not weight_map:
            raise FormatError(f"{where}: no weight_map")
        names = set(weight_map.values()) if _all_text(weight_map.values()) else {None}
        for name in names:
            if name is None or Path(name).name != name or "\\" in name or name in (".", ".."):
                raise FormatError(f"{where}: shard name {printable(name)} is not a plain file name")
            if not (self.folder / name).is_file():
                raise FormatError(f"{where}: shard {printable(name)} is missing")
        return [self.folder / name for name in sorted(names)]

    def close(self) -> None:
        """Unmap the shards."""
        for file in self.files:
            file.close()
        self.tensors = {}


def _pooling(folder: Path) -> dict[str, int]:
    """Return how sentence-transformers pools, as GGUF numbers it; {} where nothing says so."""
    for path in sorted(folder.glob("[0-9]*_Pooling/config.json")):
        said = read_json(path)
        for number, names in POOLINGS.items():
            if said.get("pooling_mode") == names[0] or said.get(names[1]) is True:
                return {POOLING: number}
        raise FormatError(f"{printable(path)}: only mean, cls and lasttoken pooling are supported")
    return {}


def _all_text(values: Iterable[object]) -> bool:
    return all(isinstance(v, str) and v for v in values)
