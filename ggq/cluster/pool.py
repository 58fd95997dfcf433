"""Keeps actors at work: as many as fit, replaced when they die, let go when nothing waits.

An item whose actor dies is done again; one that has outlived several is for its owner to decide.
What the items are it does not know. Results come once each, whatever died in between.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, Protocol

from ggq.cluster.connect import room
from ggq.errors import GGQError, reason

__all__ = ["Pool", "Size", "Work"]

TRIES = 3  # deaths around an item, one by one, until it is suspected
STILLBORN = 6  # actors in a row that die before they are ready
_PATIENCE = 20.0  # seconds without an actor until it is told what is missing


class Work(Protocol):
    """Who owns the items."""

    waiting: deque[Any]

    def payload(self, item: Any) -> Any:
        """Return what an actor is given for an item."""

    def ready(self, facts: dict[str, Any]) -> None:
        """Hear what an actor that is ready has; GGQError ends the run."""

    def done(self, item: Any, result: Any, node: str) -> None:
        """Take a result."""

    def suspected(self, item: Any, why: str) -> None:
        """Decide on an item around which actors died: queue others, or give it up."""


@dataclass(frozen=True)
class Size:
    """How many actors, and what each holds: CPUs and bytes of memory that no other has."""

    least: int
    most: int
    cpus: int
    memory: int


@dataclass
class _Member:
    actor: Any
    node: str = ""
    item: Any = None
    busy: bool = True  # it begins, or has an item


@dataclass
class Pool:
    """Actors of ``kind``: a class with ``ready() -> facts`` and ``work(item) -> result``."""

    kind: type
    arguments: tuple[Any, ...]
    size: Size
    tell: Callable[[str], None] = lambda line: None
    _refs: dict[Any, _Member] = field(default_factory=dict)
    _idle: list[_Member] = field(default_factory=list)
    _deaths: Counter[Hashable] = field(default_factory=Counter)
    _stillborn: int = 0

    def run(self, work: Work) -> None:
        """Do all items; GGQError where actors cannot be had or ``work`` raises one."""
        import ray

        heard = time.monotonic()
        try:
            while work.waiting or any(m.item is not None for m in self._refs.values()):
                self._staff(work)
                ended, _ = ray.wait(list(self._refs), num_returns=1, timeout=1.0)
                for ref in ended:
                    self._hear(ref, work)
                    heard = time.monotonic()
                if not self._busy() and time.monotonic() - heard > _PATIENCE:
                    each = f"{self.size.cpus} CPUs and {self.size.memory / 1e9:.1f} GB each"
                    self.tell(f"waiting for {self.size.least} actors of {each}; {room()}")
                    heard = time.monotonic()
        finally:
            for member in (*self._refs.values(), *self._idle):
                ray.kill(member.actor)

    @property
    def n_ready(self) -> int:
        """How many actors are at work or could be."""
        return len(self._idle) + sum(bool(m.node) for m in self._refs.values())

    def _busy(self) -> bool:
        return any(m.item is not None for m in self._refs.values())

    def _staff(self, work: Work) -> None:
        """Give items to who is idle, begin more actors while items wait, else let go."""
        import ray

        enough = self._busy() or self.n_ready >= min(self.size.least, len(work.waiting))
        while enough and work.waiting and self._idle:
            member = self._idle.pop()
            member.item = work.waiting.popleft()
            self._refs[member.actor.work.remote(work.payload(member.item))] = member
        if not work.waiting:
            for member in (*self._idle, *(m for m in self._refs.values() if not m.node)):
                ray.kill(member.actor)
            self._idle.clear()
            self._refs = {ref: m for ref, m in self._refs.items() if m.node}
        beginning = sum(not m.node for m in self._refs.values())
        have, more = len(self._refs) + len(self._idle), len(work.waiting) - beginning
        least = max(0, min(self.size.least - have, len(work.waiting)))
        for _ in range(max(least, min(self.size.most - have, more - len(self._idle)))):
            options = {"num_cpus": self.size.cpus, "memory": self.size.memory, "max_restarts": 0}
            actor = ray.remote(self.kind).options(**options).remote(*self.arguments)
            self._refs[actor.ready.remote()] = _Member(actor)

    def _hear(self, ref: Any, work: Work) -> None:
        import ray
        from ray.exceptions import RayActorError, RayError

        member = self._refs.pop(ref)
        item, member.item = member.item, None
        try:
            result = ray.get(ref)
        except RayActorError as error:
            self._died(member, item, reason(error), work)
            return
        except RayError as error:  # what the actor raised, or an object that went with its node
            cause = getattr(error, "cause", None)
            if isinstance(cause, GGQError):
                raise GGQError(f"{member.node}: {cause}") from None
            self._died(member, item, reason(cause or error), work)
            return
        if item is None:
            work.ready(result)
            member.node, self._stillborn = result["node"], 0
        else:
            work.done(item, result, member.node)
        self._idle.append(member)

    def _died(self, member: _Member, item: Any, why: str, work: Work) -> None:
        """Do the item again, with a new actor: the loop begins one."""
        import ray

        ray.kill(member.actor)
        if item is None:
            self._stillborn += 1
            if self._stillborn >= STILLBORN:
                raise GGQError(f"{STILLBORN} actors died while they began, the last of: {why}")
            return
        self._deaths[item] += 1
        if self._deaths[item] >= TRIES:
            work.suspected(item, why)
        else:
            work.waiting.appendleft(item)
