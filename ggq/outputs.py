"""Where a file may be written: the one check that every writer of files asks first.

It knows paths and kinds of files, nothing of what is written.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from ggq.errors import UsageError, exists_error, printable, reason

__all__ = ["not_of", "output_file", "write_text"]

_OTHERS = (  # kinds that are no file, in words
    (stat.S_ISDIR, "is a folder"),
    (stat.S_ISCHR, "is a device, not a file"),
    (stat.S_ISBLK, "is a device, not a file"),
    (stat.S_ISFIFO, "is a FIFO, not a file"),
    (stat.S_ISSOCK, "is a socket, not a file"),
)


def output_file(path: str | os.PathLike[str], force: bool = True) -> Path:
    """Return the file to write for ``path``: itself, or where a symbolic link there leads.

    UsageError: it is a folder, device, FIFO or socket, its folder is missing, or it exists and no
    ``force`` is given. What replaces a file belongs beside the path returned, not beside the link.
    """
    path = Path(path)
    target = Path(os.path.realpath(path)) if path.is_symlink() else path
    try:
        mode = os.stat(target).st_mode
    except (FileNotFoundError, NotADirectoryError):
        mode = None
    except OSError as error:  # a link that leads to itself, a folder that may not be read
        raise UsageError(f"{printable(path)}: cannot write: {reason(error)}") from None
    for is_kind, what in _OTHERS:
        if mode is not None and is_kind(mode):
            raise UsageError(f"{printable(path)}: {what}")
    if not force and os.path.lexists(path):
        raise exists_error(path)
    if not target.parent.is_dir():
        raise UsageError(f"{printable(target.parent)}: no such folder")
    return target


def not_of(path: Path, *read: str | os.PathLike[str] | None) -> Path:
    """Return ``path``; UsageError where it is one of the files that are ``read``, forced or not.

    By whatever name or link. Of a model's folder all files count but GGUF files: results lie there.
    """
    for source in (Path(one) for one in read if one is not None):
        inside = source.is_dir()
        for one in source.iterdir() if inside else (source,):
            if path.is_file() and one.is_file() and one.samefile(path):
                if inside and one.suffix == ".gguf":
                    continue
                what = "of the source" if inside else "that is read"
                raise UsageError(f"{printable(path)}: is a file {what}; name another")
    return path


def write_text(path: str | os.PathLike[str], text: str, what: str = "") -> None:
    """Write UTF-8 text over whatever file is there; UsageError, beginning with ``what``."""
    try:
        output_file(path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{what}{printable(path)}: {reason(error)}") from None
