"""Fetching a model of the Hugging Face hub: what it would be, then resumably, then verified.

It obeys HF_ENDPOINT, HF_TOKEN and HF_HUB_OFFLINE, and asks no terminal anything.
"""

from __future__ import annotations

import errno
import hashlib
import re
import shutil
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ggq import hf_hub
from ggq.errors import GGQError, printable, reason
from ggq.gguf.units import format_size
from ggq.progress import Progress

__all__ = ["Plan", "fetch", "plan"]

_SECONDS = 20.0  # to wait for the hub's list of a repository's files
_NETWORK = ("Connect", "Timeout", "Proxy", "ReadError", "WriteError", "RemoteProtocol", "SSLError")
_Report = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """The files of one model on the hub, first the one to open, and what of them is missing."""

    repo: str
    revision: str
    licence: str
    files: tuple[Any, ...]  # huggingface_hub's RepoSibling
    size: int  # bytes of all
    missing: int  # bytes that have to be fetched

    @property
    def about(self) -> str:
        """Return name and licence for people."""
        first = printable(self.files[0].rfilename)
        shards = f" and {len(self.files) - 1} more" if len(self.files) > 1 else ""
        kept = self.size - self.missing
        here = f", {format_size(kept)} of it here" if kept > 0 else ""
        return f"{first}{shards}, licence {printable(self.licence)}{here}"


def plan(repo: str, quant: str | None) -> Plan:
    """Ask the hub which files a model has. GGQError in one line where it cannot be asked."""
    shown = f"{repo}:{quant}" if quant else repo
    if hf_hub.told_offline():
        raise GGQError(f"offline: HF_HUB_OFFLINE is set, and {shown} is not on this machine")
    if hf_hub.offline():
        raise GGQError(f"offline: {_host()} cannot be found, and {shown} is not on this machine")
    with _explained(repo):
        api = hf_hub.package().HfApi()
        info = api.model_info(repo, files_metadata=True, timeout=_SECONDS)
        siblings = {sibling.rfilename: sibling for sibling in info.siblings or ()}
        files = tuple(siblings[name] for name in hf_hub.choose(siblings, quant, repo))
    licence = next((t[8:] for t in info.tags or () if t.startswith("license:")), "not stated")
    sizes = [file.size or 0 for file in files]
    here = sum(_here(repo, file) for file in files)
    return Plan(repo, info.sha, licence, files, sum(sizes), max(sum(sizes) - here, 0))


def fetch(wanted: Plan, report: _Report, progress: Progress | None = None) -> Path:
    """Download what is missing into the hub's cache, each file verified; return the first.

    ``progress`` is told bytes. What is broken off stays and is gone on with the next time.
    """
    folder = hf_hub.cache_dir()
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if wanted.missing > free:
        needed = f"{format_size(wanted.missing)} are needed, {format_size(free)} free"
        raise GGQError(f"{printable(folder)}: not enough room: {needed} (HF_HUB_CACHE moves it)")
    with _explained(wanted.repo):
        paths = [_download(wanted, file, report, progress) for file in wanted.files]
    return paths[0]


def _download(wanted: Plan, file: Any, report: _Report, progress: Progress | None) -> Path:
    """Return a file of the hub in its cache, going on where an earlier download broke off.

    The hub's package forgets what it had of a file when its process ends; so the part is kept here,
    beside the blob that it becomes. The package then finds the blob and links it.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.utils import WeakFileLock

    name = file.rfilename
    url = hf_hub_url(wanted.repo, name, revision=wanted.revision)
    about = get_hf_file_metadata(url)
    blobs = _blobs(wanted.repo)
    blob = blobs / re.sub(r"[^\w-]", "", about.etag or "")
    if blob.name and not blob.exists():
        blobs.mkdir(parents=True, exist_ok=True)
        lock = blob.with_suffix(".ggq-lock")
        with WeakFileLock(lock):
            if not blob.exists():  # another process may have fetched it meanwhile
                report(f"fetching {printable(name)} ({format_size(file.size or 0)})")
                part = blob.with_suffix(".ggq-part")
                _fill(part, about, progress, printable(name))
                _verify(part, file)
                part.replace(blob)
        lock.unlink(missing_ok=True)
    elif blob.name:
        _verify(blob, file)
    return Path(hf_hub_download(wanted.repo, name, revision=wanted.revision))


def _fill(part: Path, about: Any, progress: Progress | None, name: str) -> None:
    """Download into ``part`` what it lacks, again where the line breaks while it grows."""
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import (
        are_progress_bars_disabled,
        build_hf_headers,
        disable_progress_bars,
        enable_progress_bars,
    )

    headers = build_hf_headers() if _same_host(about.location) else {}
    quiet = are_progress_bars_disabled()
    disable_progress_bars()  # the bar is ours
    try:
        while True:
            before = part.stat().st_size if part.exists() else 0
            if about.size is not None and before > about.size:
                part.unlink()
                before = 0
            try:
                with part.open("ab") as file:
                    out: Any = _Counted(file, about.size or 0, name, progress)
                    http_get(
                        about.location,
                        out,
                        resume_size=before,
                        headers=headers,
                        expected_size=about.size,
                    )
                return
            except Exception as error:
                if before and _status(error) == 416:  # it is not the beginning of what is there
                    part.unlink(missing_ok=True)
                    continue
                grown = part.stat().st_size > before
                if not (grown and _is_network(error)):  # http_get has tried several times itself
                    raise
    finally:
        if not quiet:
            enable_progress_bars()


class _Counted:
    """A file that tells how much of it there is while it is written."""

    def __init__(self, file: Any, total: int, name: str, progress: Progress | None) -> None:
        self._file, self._total, self._name, self._progress = file, total, name, progress

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def write(self, data: bytes) -> int:
        """Write and tell."""
        written: int = self._file.write(data)
        if self._progress:
            self._progress(self._file.tell(), self._total, self._name)
        return written


def _verify(path: Path, sibling: Any) -> None:
    """Compare a downloaded file with the hub's size and SHA-256; a wrong one is deleted."""
    lfs = getattr(sibling, "lfs", None)
    expected = lfs.get("sha256") if isinstance(lfs, dict) else getattr(lfs, "sha256", None)
    size, name = path.stat().st_size, printable(sibling.rfilename)
    problem = f"has {size} bytes, not {sibling.size}" if sibling.size not in (None, size) else ""
    if expected and not problem:
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
        if digest.hexdigest() != expected:
            problem = "SHA-256 differs from the hub's"
    if problem:
        path.unlink()
        raise GGQError(f"{name}: {problem}: it was deleted, pull it again")


def _here(repo: str, file: Any) -> int:
    """Return how many bytes of a file are on this machine."""
    lfs = getattr(file, "lfs", None)
    digest = lfs.get("sha256") if isinstance(lfs, dict) else getattr(lfs, "sha256", None)
    blob = _blobs(repo) / (digest or "-")
    for path in (blob, blob.with_suffix(".ggq-part")):
        if path.is_file():
            return path.stat().st_size
    return 0


def _blobs(repo: str) -> Path:
    return hf_hub.cache_dir() / f"models--{repo.replace('/', '--')}" / "blobs"


def _endpoint() -> str:
    from huggingface_hub.constants import ENDPOINT

    return str(ENDPOINT)


def _host() -> str:
    return urlsplit(_endpoint()).netloc


def _same_host(url: str) -> bool:
    """Tell whether a token may be sent there: to the hub, not to where it keeps large files."""
    return urlsplit(url)[:2] == urlsplit(_endpoint())[:2]


@contextmanager
def _explained(repo: str) -> Any:
    """Raise the hub's many errors, and those of the network below it, as one line."""
    try:
        yield
    except GGQError:
        raise
    except Exception as error:
        raise GGQError(_explanation(error, repo)) from None


def _explanation(error: Exception, repo: str) -> str:
    kinds = {kind.__name__ for kind in type(error).__mro__}
    status = _status(error)
    if "GatedRepoError" in kinds:
        how = f"accept its terms at {_endpoint()}/{repo}, then log in (hf auth login, or HF_TOKEN)"
        return f"{repo}: its owner asks who fetches it: {how}"
    if "RepositoryNotFoundError" in kinds or status == 401:
        return f"{repo}: the hub has no such repository, or it is private (HF_TOKEN)"
    if "EntryNotFoundError" in kinds or status == 404:
        return f"{repo}: the hub lists a file that it does not have: try again later"
    if status == 429:
        return f"{repo}: {_host()} asks to wait: too many requests (429), try again{_after(error)}"
    if status is not None:
        return f"{repo}: {_host()} answers {status}: {reason(error)}"
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"{printable(hf_hub.cache_dir())}: no room left (HF_HUB_CACHE moves it)"
    if _is_network(error):
        what = f"{_host()} cannot be reached, or broke off ({reason(error)})"
        return f"{repo}: offline? {what}; what was fetched is kept"
    return f"{repo}: {type(error).__name__}: {reason(error)}"


def _status(error: Exception) -> int | None:
    found = getattr(getattr(error, "response", None), "status_code", None)
    return found if isinstance(found, int) else None


def _after(error: Exception) -> str:
    headers = getattr(getattr(error, "response", None), "headers", {})
    seconds = str(headers.get("retry-after", ""))
    return f" in {seconds} s" if seconds.isdigit() else " later"


def _is_network(error: Exception) -> bool:
    """Tell whether the line is at fault; the package's own libraries for it change by version."""
    if isinstance(error, (ConnectionError, TimeoutError)) or "Consistency check" in str(error):
        return True
    names = [kind.__name__ for kind in type(error).__mro__]
    return any(word in name for name in names for word in _NETWORK)
