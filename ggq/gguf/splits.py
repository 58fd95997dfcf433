"""Names of the shards of a split model, and the checks that bind them together.

Shards are looked for only beside the first one and only under the standard name; it never follows a
path that is written inside a file. It does not read headers itself.
"""

from __future__ import annotations

import re
from pathlib import Path

from ggq.errors import FormatError, printable
from ggq.gguf import spec

_PATTERN = re.compile(r"^(?P<stem>.*)-(?P<no>\d{5})-of-(?P<count>\d{5})\.gguf$", re.DOTALL)


def shard_path(base: Path, index: int, count: int) -> Path:
    """Return the path of shard ``index`` (from 0); ``base`` is ``folder/stem[.gguf]``."""
    stem = base.name.removesuffix(".gguf")
    return base.with_name(f"{stem}-{index + 1:05d}-of-{count:05d}.gguf")


def parse_shard_name(path: Path) -> tuple[Path, int, int] | None:
    """Return (base path without suffix, index from 0, count) of a shard's name, else None."""
    match = _PATTERN.match(path.name)
    if match is None:
        return None
    return path.with_name(match["stem"] + ".gguf"), int(match["no"]) - 1, int(match["count"])


def sibling_shards(path: Path, count: int) -> list[Path]:
    """Return the paths of all ``count`` shards beside the first one; raises FormatError."""
    shown = printable(path)
    if count > spec.MAX_SHARDS:
        raise FormatError(
            f"{shown}: key '{spec.KEY_SPLIT_COUNT}': {count} shards, limit {spec.MAX_SHARDS}"
        )
    parsed = parse_shard_name(path)
    if parsed is None:
        raise FormatError(
            f"{shown}: is one of {count} shards but is not named NAME-00001-of-{count:05d}.gguf"
        )
    base, index, named = parsed
    if named != count:
        raise FormatError(
            f"{shown}: the name says {named} shards, key '{spec.KEY_SPLIT_COUNT}' says {count}"
        )
    paths = [shard_path(base, i, count) for i in range(count)]
    if index != 0:
        raise FormatError(f"{shown}: is shard {index + 1} of {count}; open {printable(paths[0])}")
    for other in paths[1:]:
        _check_link(path, other)
    return paths


def _check_link(first: Path, other: Path) -> None:
    """Refuse a shard that is a link out of the folder.

    The Hugging Face cache consists of links into one ``blobs`` folder: allowed when the first
    shard, which the user named, is a link into the same folder.
    """
    if not other.is_symlink():
        return
    if first.is_symlink() and first.resolve().parent == other.resolve().parent:
        return
    raise FormatError(f"{printable(other)}: shard is a symbolic link out of its folder")
