"""Models of the Hugging Face hub: ``org/repo`` with a quantization, in the hub's own cache.

Fetching needs the ``hub`` extra (huggingface_hub) and obeys HF_TOKEN, HF_HOME, HF_HUB_OFFLINE;
finding and removing what is in the cache needs nothing.
"""

from __future__ import annotations

import hashlib
import os
import re
import socket
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from ggq.errors import GGQError, UsageError, printable, reason

_PREFERRED = ("Q4_K_M", "Q4_K_S", "Q4_0", "Q5_K_M", "Q8_0")
_SHARD = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$")
_SIDECARS = ("mmproj", "mtp-", "imatrix")


def package() -> Any:
    """Return huggingface_hub, its messages left to us; UsageError where it is not installed."""
    try:
        import huggingface_hub
    except ImportError:
        raise UsageError("models of the hub need the extra: pip install 'ggq[hub]'") from None
    from huggingface_hub.utils import logging

    if "HF_HUB_VERBOSITY" not in os.environ:
        logging.set_verbosity_error()
    return huggingface_hub


def told_offline() -> bool:
    """Tell whether the hub is not to be asked, by its environment variable."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON")


def offline() -> bool:
    """Tell whether there is no hub to ask: told so, or its name has no address here.

    Its package finds out by asking again and again, for half a minute.
    """
    from huggingface_hub.constants import ENDPOINT

    if told_offline() or getproxies():  # names may be the proxy's business
        return told_offline()
    try:
        socket.getaddrinfo(urlsplit(ENDPOINT).hostname, None)
    except OSError:
        return True
    return False


def cache_dir() -> Path:
    """Return the hub's cache folder, by its environment variables."""
    if explicit := os.environ.get("HF_HUB_CACHE"):
        return Path(explicit)
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "huggingface"
    return Path(os.environ.get("HF_HOME") or default) / "hub"


def choose(names: Iterable[str], quant: str | None, repo: str) -> list[str]:
    """Return the files of one model: all shards of it, first the one to open.

    ``quant`` is matched against the names as hubs write them; without it Q4_K_M is preferred.
    Raises UsageError naming what there is.
    """
    models = [n for n in sorted(names) if n.lower().endswith(".gguf") and not _is_sidecar(n)]
    wanted = [quant] if quant else list(_PREFERRED)
    found = next((hits for q in wanted if (hits := [n for n in models if _has(n, q)])), None)
    if found is None and not quant and len({_SHARD.sub("", n) for n in models}) == 1:
        found = models
    if not found:
        there = ", ".join(map(printable, models[:8])) or "no GGUF files: convert it (ggq convert)"
        asked = f"no {printable(quant)}" if quant else "no default quantization"
        raise UsageError(f"{repo} has {asked}; there: {there}")
    stem = _SHARD.sub("", found[0])
    return [name for name in found if _SHARD.sub("", name) == stem]


def find(repo: str, quant: str | None) -> Path:
    """Return a model's file in the cache; UsageError with how to get it if it is not there."""
    for snapshot in _snapshots(repo):
        names = [p.relative_to(snapshot).as_posix() for p in snapshot.rglob("*.gguf")]
        if names:
            return snapshot / choose(names, quant, repo)[0]
    reference = f"{repo}:{quant}" if quant else repo
    raise UsageError(f"{reference} is not in the cache: fetch it with `ggq pull {reference}`")


def fetch(repo: str, quant: str | None, report: Callable[[str], None]) -> Path:
    """Download a model's files into the hub's cache, resuming; return the one to open."""
    if told_offline():
        return find(repo, quant)
    hub = package()
    try:
        info = hub.HfApi().model_info(repo, files_metadata=True)
        files = {sibling.rfilename: sibling for sibling in info.siblings or ()}
        chosen = choose(files, quant, repo)
        paths = []
        for name in chosen:
            report(f"fetching {printable(name)} ({(files[name].size or 0) / 1e6:.0f} MB)")
            paths.append(_download(repo, files[name], info.sha))
            _verify(paths[-1], files[name])
    except GGQError:
        raise
    except Exception as error:  # the hub's many errors, and those of the network below it
        raise GGQError(f"{repo}: {type(error).__name__}: {reason(error)}") from None
    return paths[0]


def _download(repo: str, file: Any, revision: str) -> Path:
    """Return a file of the hub in its cache, going on where an earlier download broke off.

    The hub's package forgets what it had of a file when its process ends; so the part is kept here,
    beside the blob that it becomes. The package then finds the blob and links it.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import WeakFileLock, build_hf_headers

    name = file.rfilename
    about = get_hf_file_metadata(hf_hub_url(repo, name, revision=revision))
    blobs = cache_dir() / f"models--{repo.replace('/', '--')}" / "blobs"
    blob = blobs / re.sub(r"[^\w-]", "", about.etag or "")
    if blob.name and not blob.exists():
        blobs.mkdir(parents=True, exist_ok=True)
        part = blob.with_suffix(".ggq-part")
        with WeakFileLock(blob.with_suffix(".ggq-lock")), part.open("ab") as out:
            http_get(
                about.location,
                out,
                resume_size=part.stat().st_size,
                headers=build_hf_headers() if _same_host(about.location) else {},
                expected_size=about.size,
            )
        _verify(part, file)
        part.replace(blob)
        blob.with_suffix(".ggq-lock").unlink(missing_ok=True)
    return Path(hf_hub_download(repo, name, revision=revision))


def _same_host(url: str) -> bool:
    """Tell whether a token may be sent there: to the hub, not to where it keeps large files."""
    from huggingface_hub.constants import ENDPOINT

    return urlsplit(url)[:2] == urlsplit(ENDPOINT)[:2]


def stored() -> list[tuple[str, Path]]:
    """Return (reference, file) of every model in the cache; of split ones the first shard."""
    found = []
    for folder in sorted(cache_dir().glob("models--*--*")):
        repo = folder.name.removeprefix("models--").replace("--", "/")
        for snapshot in _snapshots(repo)[:1]:
            for path in sorted(snapshot.rglob("*.gguf")):
                shard = _SHARD.search(path.name)
                if not _is_sidecar(path.name) and (not shard or shard[1] == "00001"):
                    found.append((f"{repo}:{_label(path.name)}", path))
    return found


def remove(repo: str, quant: str | None) -> list[Path]:
    """Delete a model's files from the cache, links and blobs; return the deleted links."""
    first = find(repo, quant)
    stem = _SHARD.sub("", first.name)
    links = [p for p in sorted(first.parent.glob("*.gguf")) if _SHARD.sub("", p.name) == stem]
    for link in links:
        blob = link.resolve()
        link.unlink()
        if blob != link and blob.parent.name == "blobs":
            blob.unlink(missing_ok=True)
    return links


def _snapshots(repo: str) -> list[Path]:
    """Return the cached versions of a repository, the newest first."""
    folder = cache_dir() / f"models--{repo.replace('/', '--')}" / "snapshots"
    if not folder.is_dir():
        return []
    return sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)


def _has(name: str, quant: str) -> bool:
    """Return whether a file name holds ``quant`` as a whole word."""
    word = re.escape(quant)
    return bool(re.search(rf"(?:^|[-._/]){word}(?:[-._/]|$)", name, re.IGNORECASE))


def _label(name: str) -> str:
    """Return the quantization in a file name, or its stem."""
    stem = _SHARD.sub("", name).removesuffix(".gguf")
    found = re.findall(r"(?:^|[-._])((?:I?Q\d\w*|F16|F32|BF16|MXFP4\w*))", stem, re.IGNORECASE)
    return found[-1] if found else stem


def _is_sidecar(name: str) -> bool:
    return name.rsplit("/", 1)[-1].lower().startswith(_SIDECARS)


def _verify(path: Path, sibling: Any) -> None:
    """Compare a downloaded file with the hub's SHA-256."""
    lfs = getattr(sibling, "lfs", None)
    expected = lfs.get("sha256") if isinstance(lfs, dict) else getattr(lfs, "sha256", None)
    if not expected:
        return
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    if digest.hexdigest() != expected:
        path.unlink()
        raise GGQError(f"{sibling.rfilename}: SHA-256 differs from the hub's: pull it again")
