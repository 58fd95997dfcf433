"""A repository of the Hugging Face hub as a folder: all that a conversion needs, or an outline.

What the files mean is the checkpoint's business; how the hub is asked, `ggq.hf_hub`'s.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, TypeVar

from ggq import hf_hub, models
from ggq.converters import formats
from ggq.converters.checkpoint.folder import read_config, read_json
from ggq.converters.checkpoint.mistral import PARAMS
from ggq.converters.checkpoint.weights import INDEX, OWN
from ggq.errors import GGQError, UsageError, printable, reason

__all__ = ["config_file", "fetch", "outline"]

REPO_ID = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}")
_Answer = TypeVar("_Answer")
SMALL = ("*.json", "*.jinja", "tokenizer.model*", "merges.txt", "vocab.txt", "README.md")
WEIGHTS = "*.safetensors"
INNER = ("*/*.safetensors",)
COPIES = f"{OWN}*"  # for other programs, where there are files of the usual form
PICKLED = "pytorch_model*.bin"


def config_file(repo_id: str) -> Path:
    """Return config.json of a repository, fetched; UsageError where it cannot be had.

    Where there is none it is params.json, which models in Mistral's own form have.
    """
    if not REPO_ID.fullmatch(repo_id):
        raise UsageError(f"{printable(repo_id)}: no such file or folder, nor a repository id")
    hub, local = hf_hub.package(), {"local_files_only": hf_hub.offline()}

    def ask() -> Path:
        try:
            return Path(hub.hf_hub_download(repo_id, "config.json", **local))
        except Exception as error:
            if type(error).__name__ not in ("EntryNotFoundError", "RemoteEntryNotFoundError"):
                raise
        return Path(hub.hf_hub_download(repo_id, PARAMS, **local))

    return _asked(repo_id, ask)


def fetch(repo_id: str) -> Path:
    """Download what a conversion needs of a repository; return the folder.

    config.json comes first: a model that cannot be converted is refused before its weights.
    """
    _check(repo_id)
    return _whole(repo_id)


def _whole(repo_id: str) -> Path:
    """Return the folder with its weights: safetensors, else Mistral's own, else torch's."""
    folder = _snapshot(repo_id, (WEIGHTS, *SMALL), (*INNER, COPIES))
    for more in (f"{OWN}*.safetensors", PICKLED):
        if any(folder.glob(WEIGHTS)):
            break
        folder = _snapshot(repo_id, (more, *SMALL), INNER)
    return folder


@contextmanager
def outline(repo_id: str) -> Iterator[Path]:
    """Yield a folder as `fetch` gives one, but its weights are headers over nothing.

    Headers are read with range requests. Without a network it is what the cache holds.
    """
    _check(repo_id)
    if hf_hub.offline():
        yield _whole(repo_id)
        return
    small = _snapshot(repo_id, SMALL, INNER)
    with tempfile.TemporaryDirectory(prefix="ggq-outline-") as temporary:
        # The folder's name and those above it say which model it is.
        folder = Path(temporary).joinpath(*small.parts[-3:])
        shutil.copytree(small, folder, ignore=shutil.ignore_patterns(WEIGHTS))
        for name in _shards(repo_id, folder):
            _write_outline(folder / name, _header(repo_id, name, small.name))
        yield folder


def _check(repo_id: str) -> None:
    config = read_config(config_file(repo_id))
    models.for_hf(config).hparams(config)
    formats.quantization(config)


def _snapshot(repo_id: str, patterns: tuple[str, ...], without: tuple[str, ...]) -> Path:
    hub = hf_hub.package()
    wanted: dict[str, Any] = {"local_files_only": hf_hub.offline()}
    wanted |= {"allow_patterns": list(patterns), "ignore_patterns": list(without)}
    return _asked(repo_id, lambda: Path(hub.snapshot_download(repo_id, **wanted)))


def _shards(repo_id: str, folder: Path) -> list[str]:
    """Return the names of the weights' files: those of the index, else all at the top."""
    named = read_json(folder / INDEX).get("weight_map")
    if isinstance(named, dict):
        names = sorted({str(name) for name in named.values()})
    else:
        api = hf_hub.package().HfApi()
        files = _asked(repo_id, lambda: api.list_repo_files(repo_id))
        safe = [n for n in files if n.endswith(".safetensors")]
        names = [n for n in safe if not n.startswith(OWN)] or safe
        if not names and any(fnmatch(n, PICKLED) for n in files):
            what = "its weights are torch's, whose sizes are known only when they are here"
            raise UsageError(f"{printable(repo_id)}: {what}: no dry run")
    return [n for n in names if Path(n).name == n and "\\" not in n]


def _header(repo_id: str, name: str, revision: str) -> dict[str, Any]:
    """Return the header of one file as the file itself has it."""
    api = hf_hub.package().HfApi()

    def ask() -> Any:
        return api.parse_safetensors_file_metadata(repo_id, name, revision=revision)

    found = _asked(repo_id, ask).tensors
    return {
        tensor: {
            "dtype": info.dtype,
            "shape": list(info.shape),
            "data_offsets": list(info.data_offsets),
        }
        for tensor, info in found.items()
    }


def _write_outline(path: Path, header: dict[str, Any]) -> None:
    """Write a header and a hole of the size that it describes."""
    text = json.dumps(header).encode()
    end = max((info["data_offsets"][1] for info in header.values()), default=0)
    try:
        with path.open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            file.truncate(8 + len(text) + end)
    except (OSError, OverflowError, TypeError) as error:
        raise UsageError(f"{printable(path.name)}: {reason(error)}") from None


def _asked(repo_id: str, ask: Callable[[], _Answer]) -> _Answer:
    """Return what the hub gives; UsageError with its reason in one line."""
    try:
        return ask()
    except GGQError:
        raise
    except Exception as error:  # the hub raises its own, requests' and OS errors alike
        if type(error).__name__ == "LocalEntryNotFoundError":  # no network, or told to use none
            what = "is not in the cache, and the hub is out of reach or HF_HUB_OFFLINE is set"
            raise UsageError(f"{printable(repo_id)}: {what}") from None
        raise UsageError(f"{printable(repo_id)}: download failed: {reason(error)}") from None
