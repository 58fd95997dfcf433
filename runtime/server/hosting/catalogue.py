"""Which models there are to be loaded: files in a folder, or all that `ggq list` shows."""

from __future__ import annotations

from pathlib import Path

from ggq import hub
from ggq.errors import UsageError, printable
from ggq.hf_hub import SHARD, is_sidecar
from ggq.runtime.server.hosting.base import plain_name

__all__ = ["Catalogue"]


class Catalogue:
    """Names and files of models; looked up anew each time, so that new files are seen."""

    def __init__(self, folder: Path | None = None) -> None:
        """Take a folder, or None for the models that ggq has fetched and those of the hub's cache.

        UsageError where it is no folder.
        """
        if folder is not None and not folder.is_dir():
            raise UsageError(f"{printable(folder)}: is no folder")
        self.folder = folder

    def models(self) -> dict[str, tuple[Path, int]]:
        """Return file and bytes of each model, by name.

        In a folder the name is the file's path below it without .gguf, and without the number of a
        shard; the file of a split model is its first shard, the bytes are all shards'.
        """
        if self.folder is None:
            return {m.name: (m.path, _size(m.path)) for m in hub.stored_models()}
        found = {}
        for path in sorted(self.folder.rglob("*.gguf")):
            shard = SHARD.search(path.name)
            if is_sidecar(path.name) or (shard and shard[1] != "00001"):
                continue
            name = SHARD.sub("", path.relative_to(self.folder).as_posix()).removesuffix(".gguf")
            found[name] = path, _size(path)
        return found

    def resolve(self, name: str) -> tuple[str, Path, int] | None:
        """Return (name, file, bytes) of the model that a client calls ``name``, else None.

        Case means nothing, nor does ``:latest``; short names stand for what they stand for
        everywhere, and a repository without a quantization for the one that ggq prefers.
        """
        models, wanted = self.models(), plain_name(name)
        for known, (path, size) in models.items():
            if plain_name(known) == wanted:
                return known, path, size
        if self.folder is not None or not hub.is_name(wanted):
            return None
        try:
            meant = hub.resolve_model(wanted)
        except UsageError:
            return None
        for known, (path, size) in models.items():
            if path == meant:
                return known, path, size
        return None


def _size(path: Path) -> int:
    """Return the bytes of a model's files."""
    if not SHARD.search(path.name):
        return path.stat().st_size
    stem = SHARD.sub("", path.name)
    shards = [p for p in path.parent.glob("*.gguf") if SHARD.sub("", p.name) == stem]
    return sum(p.stat().st_size for p in shards)
