"""One function over many items as Ray's tasks: done again where a node dies, results as they come.

What an item is it does not know; what must not be done twice is the function's business. Ray keeps
the processes, and with them what the function keeps, between the tasks of a node.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from ggq.cluster.connect import here, room
from ggq.converters.encode import default_threads
from ggq.errors import GGQError, reason

__all__ = ["Done", "Share", "each"]

TRIES = 4  # deaths around one item, until the run ends
_PATIENCE = 20.0  # seconds in which nothing of the cluster is used, until it is told


@dataclass(frozen=True)
class Share:
    """What a task holds alone: CPUs and bytes of memory."""

    cpus: int
    memory: int


@dataclass(frozen=True)
class Done:
    """A task's end: where, the most memory of its process so far, the function's result."""

    node: str
    peak: int
    value: Any
    error: str | None = None


def each(
    function: Callable[..., Any],
    items: Iterable[Any],
    shared: tuple[Any, ...],
    share: Share,
    tell: Callable[[str], None] = lambda line: None,
    ordered: bool = True,
) -> Iterator[tuple[int, Done]]:
    """Yield ``function(item, *shared)`` of every item with the item's number.

    ``shared`` travels once to each node. ``ordered``: in the items' order, and then no item is
    begun that is far ahead of the next one: what is held here stays small. GGQError: what the
    function raises, with the node's name, or an item around which `TRIES` processes died. Leaving
    it early ends the tasks.
    """
    import ray

    run = ray.remote(_run).options(
        num_cpus=share.cpus,
        memory=share.memory,
        max_retries=TRIES - 1,
        scheduling_strategy="SPREAD",
        runtime_env={"env_vars": _threads()},
    )
    common = ray.put((function, shared))
    left, pending, held = enumerate(items), dict[Any, int](), dict[int, Done]()
    wanted, idle = 0, _Idle(share, tell)
    try:
        while True:
            while len(pending) + len(held) < idle.places() and (one := next(left, None)):
                pending[run.remote(one[1], common)] = one[0]
            if not pending:
                return
            ended, _ = ray.wait(list(pending), num_returns=1, timeout=1.0)
            idle.heard(bool(ended))
            for ref in ended:
                number = pending.pop(ref)
                held[number] = _result(ref)
            while held and (wanted in held or not ordered):
                number = wanted if ordered else next(iter(held))
                wanted += 1
                yield number, held.pop(number)
    finally:
        for ref in pending:
            ray.cancel(ref, force=True)


class _Idle:
    """How many tasks may be under way, and a word where none of them can begin."""

    def __init__(self, share: Share, tell: Callable[[str], None]) -> None:
        self._share, self._tell, self._used = share, tell, time.monotonic()

    def places(self) -> int:
        """Return twice what the cluster has room for: what waits makes it grow, where it can."""
        import ray

        return 2 * max(1, int(ray.cluster_resources().get("CPU", 0)) // self._share.cpus)

    def heard(self, ended: bool) -> None:
        """Tell what is missing where nothing of the cluster is used for some time."""
        import ray

        free, all_ = ray.available_resources(), ray.cluster_resources()
        if ended or free.get("CPU", 0) < all_.get("CPU", 0):
            self._used = time.monotonic()
        elif time.monotonic() - self._used > _PATIENCE:
            takes = f"{self._share.cpus} CPUs and {self._share.memory / 1e9:.1f} GB each"
            self._tell(f"waiting for room for tasks of {takes}; {room()}")
            self._used = time.monotonic()


def _threads() -> dict[str, str]:
    """Return settings under which a node's linear algebra splits its sums as this process does."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    return {name: os.environ.get(name, str(default_threads())) for name in names}


def _result(ref: Any) -> Done:
    import ray
    from ray.exceptions import RayError, RayTaskError

    try:
        done: Done = ray.get(ref)
    except RayTaskError:  # a fault of ours
        raise
    except RayError as error:
        raise GGQError(f"a task died {TRIES} times, or its nodes: {reason(error)}") from None
    if done.error is not None:
        raise GGQError(f"node {done.node}: {done.error}")
    return done


def _run(item: Any, common: tuple[Callable[..., Any], tuple[Any, ...]]) -> Done:
    """Do one item, on a node."""
    function, shared = common
    try:
        value, error = function(item, *shared), None
    except (GGQError, OSError) as problem:
        value, error = None, str(problem)
    return Done(here(), _peak(), value, error)


def _peak() -> int:
    """Return the most memory that this process has had, bytes; 0 where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
