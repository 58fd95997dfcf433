"""A Hugging Face folder opened lazily: config, shards, tensors by name.

It checks every name and size before use and never runs code from the folder; what the tensors mean
is the architecture's business.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from ggq.converters import formats
from ggq.converters.checkpoint import modules, refusals
from ggq.converters.formats.base import TensorLike
from ggq.converters.safetensors import SafetensorsFile
from ggq.errors import GIT_LFS, FormatError, ModelError, pointer_error, printable, reason
from ggq.models.pooled import DENSE

__all__ = ["Checkpoint", "read_json"]

# Numbers of xIELU, which files hold as keys.
STORED_SETTING = re.compile(
    r"(?:model\.|language_model\.)*layers\.(\d{1,4})\.mlp\.act_fn\.(alpha_p|alpha_n|beta|eps)"
)
MAX_JSON = 100_000_000
INDEX = "model.safetensors.index.json"


def _stored_settings(tensors: dict[str, TensorLike]) -> dict[str, list[float]]:
    """Take settings of layers that are tensors of one number each out of ``tensors``."""
    found: dict[str, dict[int, float]] = {}
    for name, match in [(n, STORED_SETTING.fullmatch(n)) for n in tensors]:
        if match is None:
            continue
        layer, setting = match.groups()
        values = tensors.pop(name).read(slice(0, 1)).ravel()
        if values.size != 1:
            raise FormatError(f"tensor {printable(name)} holds more than a number")
        found.setdefault(f"xielu_{setting}", {})[int(layer)] = float(values[0])
    return {name: [each[i] for i in sorted(each)] for name, each in found.items()}


def read_json(path: Path, required: bool = False) -> dict[str, Any]:
    """Return a JSON object, {} where the file is absent and not required; FormatError."""
    if not path.is_file():
        if required:
            raise FormatError(f"{printable(path)}: no such file")
        return {}
    try:
        if path.stat().st_size > MAX_JSON:
            raise FormatError(f"{printable(path)}: larger than {MAX_JSON} bytes")
        data = path.read_bytes()
        if data.startswith(GIT_LFS):
            raise pointer_error(path)
        value = json.loads(data.decode("utf-8"))
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
    Where there is an index, its weight_map says which tensor of which shard is the model's.
    ``absent``: what it lists and no shard holds, and why; ``warnings``: what is not used.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._refuse_others()
        self.config = read_json(self.folder / "config.json", required=True)
        self.config |= modules.settings(self.folder, self.config, read_json)
        self.files: list[SafetensorsFile] = []
        self.tensors: dict[str, TensorLike] = {}
        self.absent: dict[str, str] = {}
        self.warnings = modules.lengths(self.folder, self.config, read_json)
        index = read_json(self.folder / INDEX)
        weight_map = _weight_map(index) if index else {}
        if weight_map and self._has_shards(weight_map):
            self._open_indexed(weight_map)
        else:
            self.tensors.update(self._open(self._single_file()).tensors)
        self.warnings += modules.warnings(self.config)
        self._open_dense()
        self.config |= _stored_settings(self.tensors)
        found = formats.quantization(self.config, lambda name: read_json(self.folder / name))
        self.quantization = None if found is None else found[0]
        try:
            self.tensors = formats.decoded(self.tensors, found)
        except FormatError:
            self.refuse_absent(lambda name: False)  # a likely reason, and it says more
            raise

    def _refuse_others(self) -> None:
        """Refuse folders that are something else: adapters, GGUF files, pipelines."""
        if refusals.is_adapter(self.folder):
            config = read_json(self.folder / refusals.ADAPTER)
            raise ModelError(refusals.adapter(self.folder, config))
        if not (self.folder / "config.json").is_file():
            raise FormatError(refusals.no_config(self.folder))

    def refuse_absent(self, is_needless: Callable[[str], bool]) -> None:
        """Refuse what the index lists and no shard holds, but for what nobody needs; FormatError.

        What is needless is told in the warnings.
        """
        for name, why in self.absent.items():
            if not is_needless(name):
                raise FormatError(f"tensor {printable(name)}: {why}")
        if self.absent:
            name, why = next(iter(self.absent.items()))
            what = f"{len(self.absent)} tensors that are left out anyway, such as {printable(name)}"
            self.warnings.append(f"{what}: {why}")

    def _has_shards(self, weight_map: dict[str, str]) -> bool:
        """Tell whether any shard is there; FormatError where there are no other weights, either."""
        shards = sorted(set(weight_map.values()))
        if any((self.folder / shard).is_file() for shard in shards):
            return True
        if not (self.folder / "model.safetensors").is_file():
            raise FormatError(f"{INDEX}: shard {printable(shards[0])} is missing")
        self.warnings.append(f"model.safetensors is used: {INDEX} is there, none of its shards is")
        return False

    def _open(self, path: Path) -> SafetensorsFile:
        file = SafetensorsFile(path)
        self.files.append(file)
        return file

    def _open_indexed(self, weight_map: dict[str, str]) -> None:
        """Take each tensor from the shard that the index names, and no other."""
        unlisted: list[str] = []
        for shard in sorted(set(weight_map.values())):
            listed = [name for name, where in weight_map.items() if where == shard]
            if not (self.folder / shard).is_file():
                why = f"its shard {printable(shard)} is missing"
                self.absent |= dict.fromkeys(listed, why)
                continue
            held = self._open(self.folder / shard).tensors
            why = f"{INDEX} lists it in {printable(shard)}, which does not hold it"
            self.absent |= dict.fromkeys((n for n in listed if n not in held), why)
            self.tensors.update((n, held[n]) for n in listed if n in held)
            unlisted += [n for n in held if weight_map.get(n) != shard]
        if unlisted:
            what = f"{len(unlisted)} tensors of the shards, such as {printable(unlisted[0])}"
            self.warnings.append(f"{what}, are not used: {INDEX} does not say that they are there")

    def _open_dense(self) -> None:
        """Take the dense layers of sentence-transformers, numbered from 2 as their folders are."""
        for number, folder in enumerate(modules.dense_folders(self.folder), 2):
            if not (folder / modules.DENSE_FILE).is_file():
                raise FormatError(refusals.no_weights(folder))
            held = self._open(folder / modules.DENSE_FILE).tensors
            for name, tensor in held.items():
                called = f"{DENSE}.{number}.{name}"
                self.tensors[called] = replace(tensor, name=called)

    @property
    def prompts(self) -> dict[str, str]:
        """Return the texts that go before others, by name; sentence-transformers' prompts."""
        return modules.prompts(self.folder, self.config, read_json)

    def _single_file(self) -> Path:
        """Return the safetensors file of a folder without an index."""
        single = self.folder / "model.safetensors"
        if single.is_file():
            return single
        found = sorted(self.folder.glob("*.safetensors"))
        if len(found) == 1:
            return found[0]
        if found:
            raise FormatError(f"{printable(self.folder)}: {len(found)} shards and no index")
        raise FormatError(refusals.no_weights(self.folder))

    def close(self) -> None:
        """Unmap the shards."""
        for file in self.files:
            file.close()
        self.tensors = {}


def _weight_map(index: dict[str, Any]) -> dict[str, str]:
    """Return tensor -> shard of an index; FormatError where a shard is no plain file name."""
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise FormatError(f"{INDEX}: no weight_map")
    for name in weight_map.values():
        plain = isinstance(name, str) and name and Path(name).name == name and "\\" not in name
        if not plain or name in (".", ".."):
            raise FormatError(f"{INDEX}: shard name {printable(name)} is not a plain file name")
    return weight_map
