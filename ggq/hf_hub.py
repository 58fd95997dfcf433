"""Models of the Hugging Face hub: ``org/repo`` with a quantization, in the hub's own cache.

It finds, lists and removes what is there; what is not, `ggq.hf_fetch` fetches. It obeys HF_HOME,
HF_HUB_CACHE and HF_HUB_OFFLINE.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ggq.errors import UsageError, printable

_PREFERRED = ("Q4_K_M", "Q4_K_S", "Q4_0", "Q5_K_M", "Q8_0")
SHARD = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$")
_SIDECARS = ("mmproj", "mtp-", "imatrix")


class NotFetchedError(UsageError):
    """A model that could be fetched is not here yet; ``name`` is what to fetch."""

    def __init__(self, name: str, here: Iterable[str] = ()) -> None:
        """Take the name, and the files of the same repository that are here."""
        there = ", ".join(map(printable, here))
        others = f" (of it are here: {there})" if there else ""
        name = printable(name)
        super().__init__(f"{name} is not here yet{others}: fetch it with `ggq pull {name}`")
        self.name = name


def package() -> Any:
    """Return huggingface_hub, its messages left to us."""
    import huggingface_hub  # half a second: only who asks the hub pays for it
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
    from urllib.request import getproxies  # brings TLS along: not for those who fetch nothing

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
    models = [n for n in sorted(names) if n.lower().endswith(".gguf") and not is_sidecar(n)]
    wanted = [quant] if quant else list(_PREFERRED)
    found = next((hits for q in wanted if (hits := [n for n in models if _has(n, q)])), None)
    if found is None and not quant and len({SHARD.sub("", n) for n in models}) == 1:
        found = models
    if not found:
        there = ", ".join(map(printable, models[:8])) or "no GGUF files: convert it (ggq convert)"
        asked = f"no {printable(quant)}" if quant else "no default quantization"
        raise UsageError(f"{repo} has {asked}; there: {there}")
    stem = SHARD.sub("", found[0])
    return [name for name in found if SHARD.sub("", name) == stem]


def find(repo: str, quant: str | None) -> Path:
    """Return a model's file in the cache; NotFetchedError where it, or a shard of it, is not."""
    here: list[str] = []
    for snapshot in _snapshots(repo):
        names = [p.relative_to(snapshot).as_posix() for p in snapshot.rglob("*.gguf")]
        names = [name for name in names if (snapshot / name).exists()]  # no link to nothing
        here += names
        try:
            chosen = choose(names, quant, repo)
        except UsageError:
            continue
        shard = SHARD.search(chosen[0])
        if not shard or len(chosen) == int(shard[2]):
            return snapshot / chosen[0]
    raise NotFetchedError(f"{repo}:{quant}" if quant else repo, sorted(set(here))[:8])


def stored() -> list[tuple[str, Path]]:
    """Return (reference, file) of every model in the cache; of split ones the first shard."""
    found = []
    for folder in sorted(cache_dir().glob("models--*--*")):
        repo = folder.name.removeprefix("models--").replace("--", "/")
        for snapshot in _snapshots(repo)[:1]:
            for path in sorted(snapshot.rglob("*.gguf")):
                shard = SHARD.search(path.name)
                if not is_sidecar(path.name) and (not shard or shard[1] == "00001"):
                    found.append((f"{repo}:{_label(path.name)}", path))
    return found


def remove(repo: str, quant: str | None) -> list[Path]:
    """Delete a model's files from the cache, links and blobs; return the deleted links."""
    first = find(repo, quant)
    stem = SHARD.sub("", first.name)
    links = [p for p in sorted(first.parent.glob("*.gguf")) if SHARD.sub("", p.name) == stem]
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
    stem = SHARD.sub("", name).removesuffix(".gguf")
    found = re.findall(r"(?:^|[-._])((?:I?Q\d\w*|F16|F32|BF16|MXFP4\w*))", stem, re.IGNORECASE)
    return found[-1] if found else stem


def is_sidecar(name: str) -> bool:
    """Tell by its name whether a GGUF file belongs to a model beside it: a projector, say."""
    return name.rsplit("/", 1)[-1].lower().startswith(_SIDECARS)
