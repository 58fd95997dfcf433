"""What cached states depend on besides the tokens, as one hash: the model, the code, the cache."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ggq import paths
from ggq.gguf import GGUFFile
from ggq.runtime.cache.kvcache import KVCache
from ggq.runtime.cache.layout import PAGE, STEP_TOKENS

__all__ = ["content_of", "identity_of"]

_CODE = ("quants", "simd", "models", "runtime/ops", "runtime/kernels", "runtime/backends")
_MORE_CODE = ("runtime/engine", "runtime/pictures", "runtime/cache", "jit.py", "lean.py")
_SAMPLE = 4096  # bytes at the begin, in the middle and at the end of each tensor


def identity_of(
    gguf: GGUFFile, hp: Any, cache: KVCache, adapters: Sequence[GGUFFile] = ()
) -> bytes:
    """Return the hash: 32 bytes that differ where a state could.

    Of the weights it takes the files' sizes and times, their headers and samples of each tensor:
    reading all of them would take longer than what the states save. ``adapters``: files whose
    changes of the weights sequences are computed with, each in its own mix of scales.
    """
    from ggq.simd.target import CHOSEN, ISA

    digest = hashlib.blake2b(digest_size=32)
    digest.update(_code())
    shape = [cache.kinds, PAGE, cache.window, cache.windowed, cache.state_floats, STEP_TOKENS]
    chosen = platform.machine(), ISA, CHOSEN.SET.cpu, CHOSEN.SET.features
    machine = *chosen, version("numba"), version("llvmlite")
    digest.update(repr((shape, machine, hp)).encode())
    for file in (gguf, *adapters):
        _add_file(digest, file)
    return digest.digest()


def content_of(*files: GGUFFile) -> str:
    """Return a hash of what files hold, by the same samples: equal for copies of other times."""
    digest = hashlib.blake2b(digest_size=16)
    for file in files:
        _add_file(digest, file, times=False)
    return digest.hexdigest()


def _add_file(digest: Any, gguf: GGUFFile, times: bool = True) -> None:
    for shard in gguf.shards:
        header = min((t.offset for t in shard.header.tensors), default=shard.size)
        digest.update(repr((shard.size, shard.mtime_ns if times else 0, header)).encode())
        digest.update(shard.data[:header].tobytes())
    for name in sorted(gguf.tensors):
        flat = gguf.data(name).reshape(-1)
        for start in (0, len(flat) // 2, len(flat) - _SAMPLE):
            digest.update(flat[max(start, 0) :][:_SAMPLE].tobytes())


def _code() -> bytes:
    """Return a hash of the sources that states are computed with."""
    root, digest = Path(paths.__file__).parent, hashlib.blake2b(digest_size=32)
    for name in (*_CODE, *_MORE_CODE):
        place = (root / name).resolve()  # in a checkout some are links
        for path in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            digest.update(path.read_bytes())
    return digest.digest()
