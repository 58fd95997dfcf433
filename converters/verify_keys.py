"""Compares a file's metadata with what its source decides; says what differs, a line each.

Keys are compared byte for byte, their types included. What only the tool decides, and names that
come from a folder's name, are told as notes where they may rightly differ.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ggq.converters.conversion import CARD_KEYS, OF_THE_SOURCE, Conversion
from ggq.converters.prepasses.recipe import ENVIRONMENT
from ggq.converters.provenance import KEY, VERSION, is_ggqs, read_provenance
from ggq.errors import printable
from ggq.gguf import GGUFFile, spec
from ggq.gguf.encode import copy_value, encode_value
from ggq.gguf.summary import plain_value
from ggq.gguf.writer import OWN_KEYS

__all__ = ["compare_keys"]

SOURCE = "ggq.source"
NAMES = frozenset(
    f"general.{n}"
    for n in ("name", "basename", "organization", "version", "finetune", "size_label")
)
MATRIX = "quantize.imatrix."
LENGTH = 60  # of a value as it is shown


def compare_keys(
    file: GGUFFile, job: Conversion, passes_ran: bool
) -> tuple[int, list[str], list[str]]:
    """Return how many keys are as the source decides, what differs, and notes."""
    keys = _Keys(file, job, passes_ran)
    keys.compare()
    return keys.n_same, keys.differs, keys.notes


class _Keys:
    def __init__(self, file: GGUFFile, job: Conversion, passes_ran: bool) -> None:
        self.file, self.job, self.passes_ran = file, job, passes_ran
        self.n_same = 0
        self.differs: list[str] = []
        self.notes: list[str] = []
        self.wanted: dict[str, bytes] = {}
        if job.copy_from is not None:
            metadata = job.copy_from.metadata
            kept = [k for k in metadata if k not in (*OWN_KEYS, *OF_THE_SOURCE)]
            self.wanted = {k: copy_value(metadata, k) for k in kept}
        self.wanted |= {i.key: encode_value(i.key, i.value, i.type) for i in job.items}
        found = file.metadata
        self.found = {k: copy_value(found, k) for k in found if k not in OWN_KEYS}
        self.is_ours = is_ggqs(file)
        self.renamed = not self.is_ours or self._is_renamed()

    def _is_renamed(self) -> bool:
        """Tell whether the source has another name now than when the file was made of it."""
        other = {k for k in (SOURCE, *NAMES) if self.wanted.get(k) != self.found.get(k)}
        return SOURCE in other and (len(other) > 1 or self.job.copy_from is not None)

    def compare(self) -> None:
        for key, value in self.wanted.items():
            if key.startswith("ggq.") and not self.is_ours:
                continue
            if key == KEY:
                self._compare_provenance()
            elif self.found.get(key) == value:
                self.n_same += 1
            else:
                self._tell(key, self._difference(key))
        more = [k for k in self.found if k not in self.wanted and not self._is_excused(k)]
        for key in more if self.is_ours else []:
            self.differs.append(f"key {printable(key)} is none that the source gives")
        if more and not self.is_ours:
            such = f"such as {printable(more[0])}"
            self.notes.append(f"{len(more)} keys are none that the source gives, {such}")
        if self.is_ours and self.file.version != spec.VERSION_WRITTEN:
            self.differs.append(f"the file says GGUF version {self.file.version}")

    def _is_excused(self, key: str) -> bool:
        """Tell whether a key may be there that is not derived: its matrix or passes are missing."""
        if key.startswith(MATRIX) and self.job.imatrix is None:
            return True
        if key in CARD_KEYS:  # measured on the file, not decided by the source
            return True
        return key.startswith("ggq.") and not self.passes_ran

    def _tell(self, key: str, line: str) -> None:
        only_tool = key in (VERSION, ENVIRONMENT) or self._is_moved_matrix(key)
        named = self.renamed and key in (SOURCE, *NAMES)
        others = not self.is_ours and key.startswith("general.")  # other versions write other ones
        (self.notes if only_tool or named or others else self.differs).append(line)

    def _is_moved_matrix(self, key: str) -> bool:
        if key != f"{MATRIX}file" or key not in self.file.metadata or self.job.imatrix is None:
            return False
        return Path(str(self.file.metadata[key])).name == Path(self.job.imatrix.path).name

    def _difference(self, key: str) -> str:
        name = printable(key)
        if key not in self.found:
            return f"key {name} is missing"
        wanted: Any = next((i.value for i in self.job.items if i.key == key), None)
        if wanted is None and self.job.copy_from is not None:
            wanted = self.job.copy_from.metadata[key]
        got = self.file.metadata[key]
        if _is_list(got) and _is_list(wanted) and len(got) == len(wanted):
            pairs = [(_plain(a), _plain(b)) for a, b in zip(got, wanted, strict=True)]
            at = next((i for i, (a, b) in enumerate(pairs) if a != b), None)
            if at is not None:
                name, (got, wanted) = f"{name}[{at}]", pairs[at]
        return f"key {name} is {_shown(got)}, the source gives {_shown(wanted)}"

    def _compare_provenance(self) -> None:
        told = read_provenance(self.file) or {}
        item = next(i for i in self.job.items if i.key == KEY)
        here: dict[str, Any] = json.loads(item.value)
        before = len(self.differs)
        told_files, files = told.get("files", {}), here["files"]
        for name, digest in told_files.items():
            if name not in files and self.job.copy_from is None:
                self.differs.append(f"{printable(name)} was read and is not in the source")
            elif name in files and files[name] != digest:
                what = f"{printable(name)} of the source is not the file that was read"
                self.differs.append(f"{what}: SHA-256 {files[name][:16]}..., then {digest[:16]}...")
        if self.job.copy_from is not None and set(told_files) != set(files):
            self._compare_digests(told_files, files)
        for name in files.keys() - told_files.keys() if self.job.copy_from is None else ():
            self.notes.append(
                f"{printable(name)} of the source was not there when the file was made"
            )
        for field, key in (("ggq", VERSION), ("source", SOURCE)):
            if told.get(field) != self.file.metadata.get(key):
                self.differs.append(f"key {KEY}: {field} is not what {key} says")
        for field in ("type", "revision"):
            if field in here and field in told and told[field] != here[field]:
                values = f"{_shown(told[field])}, the source gives {_shown(here[field])}"
                self.differs.append(f"key {KEY}: {field} is {values}")
        unknown = told.keys() - {*here, "ggq", "revision", "options", "imatrix"}
        missing = here.keys() - {*told, "revision"}
        for name in sorted(unknown | missing):
            self.differs.append(f"key {KEY}: {printable(name)} is not as ggq writes it")
        self.n_same += len(self.differs) == before

    def _compare_digests(self, told: dict[str, str], files: dict[str, str]) -> None:
        """Compare the digests of a GGUF source that has other file names now."""
        if sorted(told.values()) != sorted(files.values()):
            self.differs.append("the source is not the file that was read (SHA-256)")


def _is_list(value: Any) -> bool:
    return hasattr(value, "__len__") and not isinstance(value, (str, bytes))


def _plain(value: Any) -> Any:
    value = value.encode() if isinstance(value, str) else value
    return value.item() if hasattr(value, "item") else value


def _shown(value: Any) -> str:
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    return printable(repr(plain_value(value)), LENGTH)
