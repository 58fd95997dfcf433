"""A folder of this user's alone that holds bytes by name within a budget; nothing in it is trusted.

A file is a mark, the bytes, and a digest of its name and them. Files are written under another name
and renamed, and the longest unused go first, so that several processes may share the folder.
"""

from __future__ import annotations

import os
import re
import stat
import tempfile
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from ggq.errors import UsageError, printable, reason

__all__ = ["StateFolder"]

_MARK = b"ggq state 1\n"
_DIGEST = 32
_NAME = re.compile(r"[0-9a-f]{40}-(\d{6})\.[a-z]+")  # the number: those after it need those before
_TEMPORARY = "tmp-"
_STALE = 3600  # seconds after which a temporary file's writer has gone
_SPAN = 60  # seconds: what was used in the same span goes by number, the highest first
_KEPT = 0.9  # of the budget, where files must go
_LOOK = 64  # files after which others' files are counted again


class StateFolder:
    """Files in ``path`` that take ``limit`` bytes at most. Not for several threads at a time."""

    def __init__(self, path: Path, limit: int) -> None:
        """Make the folder, for this user alone; UsageError where it is not."""
        self.path, self.limit = path, limit
        self._total = self._writes = 0
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            info = path.stat()
            if hasattr(os, "getuid") and info.st_uid != os.getuid():
                raise UsageError(f"{printable(path)}: belongs to another user")
            path.chmod(0o700)
            self.trim()
        except OSError as error:
            raise UsageError(f"{printable(path)}: {reason(error)}") from None

    def __contains__(self, name: str) -> bool:
        """Return whether there is such a file; what it holds is only known to `read`."""
        return os.path.exists(self.path / name)

    def read(self, name: str, size: int) -> np.ndarray | None:
        """Return the ``size`` bytes, uint8, or None; a file that is not as written is removed."""
        path = self.path / name
        flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
        try:
            with open(os.open(path, flags), "rb", buffering=0) as file:
                found = self._checked(file.fileno(), name, size)
        except OSError:
            found = None
        if found is None:
            with suppress(OSError):
                path.unlink()
        return found

    def _checked(self, file: int, name: str, size: int) -> np.ndarray | None:
        info = os.fstat(file)
        mine = not hasattr(os, "getuid") or info.st_uid == os.getuid()
        whole = len(_MARK) + size + _DIGEST
        if not stat.S_ISREG(info.st_mode) or not mine or info.st_size != whole:
            return None
        data = np.empty(whole, np.uint8)
        at = 0
        while at < whole:
            part = os.read(file, min(whole - at, 1 << 24))
            if not part:
                return None
            data[at : at + len(part)] = np.frombuffer(part, np.uint8)
            at += len(part)
        mark, payload, digest = np.split(data, [len(_MARK), len(_MARK) + size])
        if mark.tobytes() != _MARK or digest.tobytes() != _digest(name, [payload]):
            return None
        return payload

    def write(self, name: str, parts: Sequence[np.ndarray]) -> None:
        """Write contiguous arrays one after the other; OSError where that cannot be."""
        size = len(_MARK) + sum(part.nbytes for part in parts) + _DIGEST
        if size > self.limit * _KEPT:
            return
        self._writes += 1
        if self._total + size > self.limit or not self._writes % _LOOK:
            self.trim(size)
        file, temporary = tempfile.mkstemp(prefix=_TEMPORARY, dir=self.path)  # mode 0600
        try:
            with open(file, "wb", buffering=0) as out:
                for part in (_MARK, *parts, _digest(name, parts)):
                    view = _view(part)
                    while len(view):
                        view = view[out.write(view) :]
            os.replace(temporary, self.path / name)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)
            raise
        self._total += size

    def touch(self, names: Iterable[str]) -> None:
        """Note that files were used now."""
        for name in names:
            with suppress(OSError):
                os.utime(self.path / name)

    def trim(self, room: int = 0) -> None:
        """Remove the longest unused files until the rest and ``room`` fit the budget."""
        found: list[tuple[int, int, str, int]] = []
        with os.scandir(self.path) as entries:
            for entry in entries:
                with suppress(OSError):
                    info, match = entry.stat(follow_symlinks=False), _NAME.fullmatch(entry.name)
                    if match:
                        used = int(info.st_mtime) // _SPAN, -int(match[1])
                        found.append((*used, entry.name, info.st_size))
                    elif entry.name.startswith(_TEMPORARY) and time.time() - info.st_mtime > _STALE:
                        os.unlink(entry.path)
        self._total = sum(size for *_, size in found)
        if self._total + room <= self.limit:
            return
        for *_, name, size in sorted(found):
            if self._total + room <= self.limit * _KEPT:
                break
            with suppress(OSError):
                (self.path / name).unlink()
            self._total -= size


def _view(part: Any) -> memoryview:
    """Return the bytes of a contiguous array or of bytes."""
    return memoryview(part).cast("B")


def _digest(name: str, parts: Sequence[np.ndarray]) -> bytes:
    digest = blake2b(name.encode(), digest_size=_DIGEST)
    for part in parts:
        digest.update(_view(part))
    return digest.digest()
