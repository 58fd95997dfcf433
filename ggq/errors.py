"""Every error that is the fault of the input or of the user, wherever it is raised.

Each message is one line that names the file, key, tensor or option at fault:
the command line prints it as it is.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

__all__ = [
    "GIT_LFS",
    "FormatError",
    "GGQError",
    "ModelError",
    "UsageError",
    "exists_error",
    "known_names",
    "naming_flags",
    "option",
    "pointer_error",
    "printable",
    "reason",
]


GIT_LFS = b"version https://git-lfs"  # what git leaves in the place of a large file


class GGQError(Exception):
    """Base of every error that is the input's or the user's fault."""


class FormatError(GGQError):
    """A file breaks its format: GGUF, safetensors, imatrix, tokenizer, template."""


class ModelError(GGQError):
    """A well-formed file describes a model that ggq cannot build or run."""


class UsageError(GGQError):
    """An option, a combination of options or a request that cannot be met."""


def printable(name: object, limit: int = 120) -> str:
    """Return ``name`` safe to print: control characters escaped, cut to ``limit`` characters."""
    # Cut first: a name from a hostile file may have a billion characters.
    if isinstance(name, bytes):
        text = name[: 4 * limit + 4].decode("utf-8", "backslashreplace")
    else:
        text = str(name)[: limit + 1]
    safe = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return safe if len(safe) <= limit else safe[: limit - 1] + "…"


_flags = False  # whether the command line runs, in whatever thread


@contextmanager
def naming_flags() -> Iterator[None]:
    """Have messages name options as the command line does, until the context ends."""
    global _flags
    before, _flags = _flags, True
    try:
        yield
    finally:
        _flags = before


def option(flag: str, argument: str | None = None) -> str:
    """Return an option as who reads the message gives it: ``--n-ctx``, or from Python ``n_ctx``.

    ``argument``: what Python calls it, where that is not the flag's own name.
    """
    return flag if _flags else argument or flag.lstrip("-").replace("-", "_")


def exists_error(path: object) -> UsageError:
    """Return the refusal to write over a file unasked."""
    overwrite = option("--force", "force=True")
    return UsageError(f"{printable(path)}: exists; {overwrite} overwrites it")


def pointer_error(path: object) -> FormatError:
    """Return the refusal of a file that begins with `GIT_LFS`."""
    return FormatError(f"{printable(path)}: is a git-lfs pointer, not the file: run git lfs pull")


def reason(error: object) -> str:
    """Return the first line of an error's own words: the system's without number and file name."""
    told = getattr(error, "strerror", None) or str(error)
    lines = str(told).strip().splitlines()
    return printable(lines[0] if lines else type(error).__name__, 300)


def known_names(name: str, known: Iterable[str]) -> str:
    """Return how to go on after an unknown ``name``: the known one it is near to, else all."""
    import difflib  # rarely needed

    names = list(known)
    near = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {near[0]}?" if near else f"one of {', '.join(names)}"
