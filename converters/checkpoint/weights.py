"""Which files of a folder hold its weights, and what each tensor of them is called.

Safetensors come first, with an index or without; torch's files where there are no others. What the
tensors mean is not known here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ggq.converters.checkpoint import refusals
from ggq.converters.checkpoint.pickled import PickledFile
from ggq.converters.formats.base import TensorLike
from ggq.converters.safetensors import SafetensorsFile
from ggq.errors import FormatError, printable

__all__ = ["INDEX", "OWN", "PICKLED_INDEX", "Weights"]

INDEX = "model.safetensors.index.json"
PICKLED_INDEX = "pytorch_model.bin.index.json"
OWN = "consolidated"  # how Mistral's own files begin
SINGLE, PICKLED = "model.safetensors", "pytorch_model.bin"
OTHERS = ("*.bin", "*.pth", "*.pt")  # torch's, where none has the usual name
# Files of trainers, which hold no weights.
NO_WEIGHTS = re.compile(r"(optimizer|scheduler|scaler|training_args|rng_state|random_states).*")
NUMBERED = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.(safetensors|bin)")
ReadJson = Callable[[Path], dict[str, Any]]


class Weights:
    """The tensors of ``folder`` by name. FormatError, ModelError: no weights, or not all of them.

    ``absent``: what an index lists and no shard holds, and why; ``beside``: tensors that an index
    does not list, of files next to it; ``warnings``: what is used and what is not.
    """

    def __init__(self, folder: Path, read_json: ReadJson) -> None:
        self.folder = folder
        self.files: list[SafetensorsFile | PickledFile] = []
        self.tensors: dict[str, TensorLike] = {}
        self.beside: dict[str, TensorLike] = {}
        self.absent: dict[str, str] = {}
        self.warnings: list[str] = []
        self._index = INDEX
        for name in (INDEX, PICKLED_INDEX, f"{OWN}.safetensors.index.json"):
            index = read_json(folder / name)
            safe = name == INDEX or not (folder / SINGLE).is_file()
            if index and safe and self._has_shards(name, weight_map := _weight_map(name, index)):
                self._index = name
                self._open_indexed(weight_map)
                return
        for path in self._files():
            self._add(path)

    def open(self, path: Path) -> SafetensorsFile | PickledFile:
        """Open one file of weights, closed with the others."""
        safe = path.suffix == ".safetensors"
        file: SafetensorsFile | PickledFile = SafetensorsFile(path) if safe else PickledFile(path)
        self.files.append(file)
        if isinstance(file, PickledFile) and file.note:
            self.warnings.append(file.note)
        return file

    @property
    def metadata(self) -> dict[str, str]:
        """What the safetensors files say of themselves besides their tensors."""
        safe = [file for file in self.files if isinstance(file, SafetensorsFile)]
        return {key: text for file in safe for key, text in file.metadata.items()}

    def _add(self, path: Path) -> None:
        for name, tensor in self.open(path).tensors.items():
            if name in self.tensors:
                what = f"tensor {printable(name)} is in {printable(path.name)} and in another shard"
                raise FormatError(f"{what}, and no index says which is meant")
            self.tensors[name] = tensor

    def _has_shards(self, name: str, weight_map: dict[str, str]) -> bool:
        """Tell whether any shard is there; FormatError where there are no other weights, either."""
        shards = sorted(set(weight_map.values()))
        if any((self.folder / shard).is_file() for shard in shards):
            return True
        if not (self.folder / SINGLE).is_file() and not (self.folder / PICKLED).is_file():
            raise FormatError(f"{name}: shard {printable(shards[0])} is missing")
        self.warnings.append(f"{SINGLE} is used: {name} is there, none of its shards is")
        return False

    def _open_indexed(self, weight_map: dict[str, str]) -> None:
        """Take each tensor from the shard that the index names, and no other."""
        unlisted: list[str] = []
        shards = set(weight_map.values())
        for shard in sorted(shards):
            listed = [name for name, where in weight_map.items() if where == shard]
            if not (self.folder / shard).is_file():
                why = f"its shard {printable(shard)} is missing"
                self.absent |= dict.fromkeys(listed, why)
                continue
            held = self.open(self.folder / shard).tensors
            why = f"{self._index} lists it in {printable(shard)}, which does not hold it"
            self.absent |= dict.fromkeys((n for n in listed if n not in held), why)
            self.tensors.update((n, held[n]) for n in listed if n in held)
            unlisted += [n for n in held if weight_map.get(n) != shard]
        if unlisted:
            what = f"{len(unlisted)} tensors of the shards, such as {printable(unlisted[0])}"
            self.warnings.append(
                f"{what}, are not used: {self._index} does not say that they are there"
            )
        self._open_beside(shards)

    def _open_beside(self, shards: set[str]) -> None:
        """Look into files called as the model's that no index names: heads, later corrections."""
        if self._index != INDEX:
            return
        for path in sorted(self.folder.glob("model*.safetensors")):
            if path.name in shards:
                continue
            held = self.open(path).tensors
            again = [name for name in held if name in self.tensors]
            if again:
                what = f"{printable(path.name)} holds {len(again)} tensors that {INDEX} lists in"
                self.warnings.append(
                    f"{what} others, such as {printable(again[0])}: the index is followed"
                )
            self.beside |= {n: t for n, t in held.items() if n not in self.tensors}

    def _files(self) -> Sequence[Path]:
        """Return the files of a folder without an index; FormatError: it is not clear which."""
        for name in (SINGLE, PICKLED):
            if (self.folder / name).is_file():
                return [self.folder / name]
            patterns = ["*.safetensors"] if name == SINGLE else [*OTHERS]
            found = sorted(p for pattern in patterns for p in self.folder.glob(pattern))
            found = [p for p in found if not NO_WEIGHTS.fullmatch(p.name)]
            if (
                name == SINGLE
            ):  # Mistral's own copy of weights that are there in the usual form, too
                found = [p for p in found if not p.name.startswith(OWN)] or found
            if len(found) == 1:
                return found
            if found:
                return self._numbered(found)
        raise FormatError(refusals.no_weights(self.folder))

    def _numbered(self, found: list[Path]) -> list[Path]:
        """Return shards that count themselves, if all are there; FormatError."""
        where = printable(self.folder)
        told = [NUMBERED.fullmatch(path.name) for path in found]
        sets = {(m[1], m[3]) for m in told if m is not None}
        if len(sets) != 1 or None in told:
            raise FormatError(f"{where}: {len(found)} shards and no index")
        total = int(next(iter(sets))[1])
        missing = sorted(set(range(1, total + 1)) - {int(m[2]) for m in told if m is not None})
        if missing or len(found) != total:
            what = f"shard {missing[0]} of {total} is missing" if missing else "shards are repeated"
            raise FormatError(f"{where}: no index, and {what}")
        self.warnings.append(f"no index: all {total} shards are used")
        return found


def _weight_map(name: str, index: dict[str, Any]) -> dict[str, str]:
    """Return tensor -> shard of an index; FormatError where a shard is no plain file name."""
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise FormatError(f"{name}: no weight_map")
    for shard in weight_map.values():
        plain = isinstance(shard, str) and shard and Path(shard).name == shard
        if not plain or "\\" in shard or shard in (".", ".."):
            raise FormatError(f"{name}: shard name {printable(shard)} is not a plain file name")
    return weight_map
