"""Temporary files next to their final names: claimed while their process lives, cleared after.

A process that is killed leaves its file behind; the next one that writes the same name deletes it.
"""

from __future__ import annotations

import glob
import os
import secrets
import shutil
from contextlib import suppress
from pathlib import Path

from ggq.outputs import output_file

try:
    import fcntl
except ImportError:  # Windows: an open file cannot be deleted there, which is claim enough
    fcntl = None  # type: ignore[assignment]

__all__ = ["claim", "clear", "release", "take_name", "temporary"]


def temporary(path: Path) -> Path:
    """Return a new name for what is to become ``path``, in the same folder."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")


def take_name(made: Path, final: Path, force: bool = False) -> None:
    """Let a complete file be there under its final name, too; ``made`` stays where links can be.

    Again it changes nothing. UsageError where another file has the name and no ``force`` is given.
    """
    if final.exists() and made.exists() and final.samefile(made):
        return
    target = output_file(final, force)
    temp = temporary(target)
    try:
        os.link(made, temp)
    except (OSError, NotImplementedError):  # a file system without links
        os.replace(made, target)
    else:
        os.replace(temp, target)


def claim(path: Path) -> int | None:
    """Mark a temporary file or folder as in use by this process; return what ``release`` takes."""
    if fcntl is None:
        return None
    handle = os.open(path, os.O_RDONLY)
    with suppress(OSError):  # a file system without locks
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return handle


def release(handle: int | None) -> None:
    """End a claim."""
    if handle is not None:
        os.close(handle)


def clear(path: Path) -> None:
    """Delete the temporary files and folders for ``path`` that no living process claims."""
    for name in glob.glob(f".{glob.escape(path.name)}.????????.part", root_dir=path.parent):
        with suppress(OSError):
            left = path.parent / name
            handle = os.open(left, os.O_RDONLY) if fcntl else None
            try:
                if fcntl and handle is not None:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # OSError: somebody's
                if left.is_dir() and not left.is_symlink():
                    shutil.rmtree(left)
                else:
                    left.unlink()
            finally:
                release(handle)
