"""What an actor takes and what is sent to it, from a model's header on the driver's machine."""

from __future__ import annotations

from pathlib import Path

from ggq.errors import GGQError

__all__ = ["actor_bytes", "model_files"]

_PROCESS = 400_000_000  # Python, numba, Ray: 200 to 250 MB measured, and activations
_UNKNOWN = 2_000_000_000  # the driver has no copy to ask


def actor_bytes(model: str, n_ctx: int | None, parallel: int) -> int:
    """Return the memory of an actor besides the model's file, which the actors of a node share."""
    from ggq import hub
    from ggq.runtime.cache.sizes import cache_bytes
    from ggq.runtime.model import load

    try:
        with load(hub.resolve_model(model), n_ctx=n_ctx, threads=1) as opened:
            return _PROCESS + cache_bytes(opened.hparams.memories, opened.n_ctx * parallel)
    except GGQError:
        return _UNKNOWN


def model_files(path: Path) -> list[Path]:
    """Return the files of a model, the first first."""
    from ggq.gguf import open_gguf

    with open_gguf(path) as file:
        return [Path(shard.path) for shard in file.shards]
