"""What an actor does for a batch: gets the model onto its node, opens it, answers ranges.

It runs on the nodes; the driver's side is ``batch.py``.
"""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

import ggq
from ggq.cluster.connect import alone_on_node, here
from ggq.errors import GGQError, UsageError, printable
from ggq.gguf import leftovers
from ggq.paths import user_cache_dir

__all__ = ["Answerer", "Asked", "Piece", "Sent", "send"]

_CHUNK = 64 << 20
_WARM = b'{"custom_id":"w","url":"/v1/completions","body":{"prompt":"a b","max_tokens":4}}'


@dataclass(frozen=True)
class Sent:
    """A model in the object store: per file its name, its hash and references to its chunks."""

    files: tuple[tuple[str, tuple[Any, ...]], ...]
    digest: str


@dataclass(frozen=True)
class Asked:
    """How to answer; ``load`` and ``settings`` are of `ggq.load` and `Settings`."""

    model: str
    parallel: int
    created: int
    load: dict[str, Any]
    max_tokens: int | None = None
    sent: Sent | None = None


@dataclass(frozen=True)
class Piece:
    """Lines to answer, the first of them the ``number``-th of the input."""

    number: int
    lines: tuple[bytes, ...]


def send(files: list[Path]) -> Sent:
    """Put a model's files into the object store, in chunks: nodes fetch each once."""
    import ray

    digest, sent = hashlib.sha256(), []
    for path in files:
        chunks = []
        with path.open("rb") as file:
            while data := file.read(_CHUNK):
                digest.update(data)
                chunks.append(ray.put(data))
        sent.append((path.name, tuple(chunks)))
    return Sent(tuple(sent), digest.hexdigest()[:24])


class Answerer:
    """An actor: one opened model."""

    def __init__(self, asked: Asked) -> None:
        self.asked = asked

    def ready(self) -> dict[str, Any]:
        """Open the model and compile; return what the driver compares between nodes.

        A lock of the node has one actor at a time fetch and compile: the others find both done.
        """
        from ggq.runtime.cache.identity import content_of
        from ggq.runtime.model import load
        from ggq.runtime.server.service import Service
        from ggq.runtime.server.settings import Settings
        from ggq.runtime.server.slots import make_scheduler
        from ggq.simd.target import ISA

        asked = self.asked
        facts = {"node": here(), "ggq": ggq.__version__}
        try:
            with alone_on_node():
                path = self._path()
                model = load(path, **asked.load)
                scheduler = make_scheduler(model, n_slots=asked.parallel, max_waiting=1_000_000)
                settings = Settings(model_id=path.stem, max_tokens=asked.max_tokens)
                self._service = Service(model, scheduler.start(), settings)
                self._loop = asyncio.new_event_loop()
                self.work(Piece(0, (_WARM,)))
        except (GGQError, OSError) as error:
            return facts | {"error": str(error)}
        adapters = [one.file for one in model.adapters]
        return facts | {
            "model": path.stem,
            "isa": ISA,
            "content": content_of(model.gguf, *adapters),
        }

    def work(self, piece: Piece) -> list[bytes]:
        """Return the output lines."""
        return self._loop.run_until_complete(_all(self._service, piece, self.asked.created))

    def _path(self) -> Path:
        from ggq import hub

        asked = self.asked
        if asked.sent is not None:
            return _received(asked.sent)
        if Path(asked.model).is_absolute():
            if not Path(asked.model).exists():
                what = f"no model at {printable(asked.model)}"
                raise UsageError(f"{what}: put it there, or give --send-model")
            return hub.resolve_model(asked.model)
        return hub.obtain(asked.model)


async def _all(service: Any, piece: Piece, created: int) -> list[bytes]:
    """Answer the lines at the same time. No method: Ray would give the actor a loop of its own."""
    from ggq.runtime.server.batch import answer_line

    numbered = enumerate(piece.lines, piece.number)
    made = await asyncio.gather(*(answer_line(service, raw, n, created) for n, raw in numbered))
    return [msgspec.json.encode(line) for line in made]


def _received(sent: Sent) -> Path:
    """Return the first file of a model that was sent, written on this node by the first to ask."""
    import ray

    folder = user_cache_dir() / "cluster" / sent.digest
    folder.mkdir(parents=True, exist_ok=True)
    for name, chunks in sent.files:
        path = folder / name
        if path.exists():
            continue
        temp = leftovers.temporary(path)
        leftovers.clear(path)
        try:
            with temp.open("xb") as file:
                for chunk in chunks:
                    file.write(ray.get(chunk))
            temp.replace(path)
        finally:
            temp.unlink(missing_ok=True)
    return folder / sent.files[0][0]
