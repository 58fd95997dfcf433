"""Into a Ray cluster and out again, and what its nodes have."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from ggq.errors import UsageError, option, printable, reason
from ggq.extras import how_to_install
from ggq.paths import user_cache_dir

__all__ = ["alone_on_node", "check_ray", "connected", "cpus_of_nodes", "here", "room"]


def check_ray() -> None:
    """Refuse where Ray is not installed; UsageError says how to."""
    if find_spec("ray") is None:
        raise UsageError(f"{option('--cluster')} needs ray: {how_to_install('cluster')}")


@contextmanager
def connected(address: str) -> Iterator[None]:
    """Be a driver of the cluster at an address; "auto": of this machine, "local": of its own.

    UsageError where Ray is not installed or nothing answers.
    """
    check_ray()
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is told to anyone
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # it warns otherwise
    import ray

    _check_answers(address)
    alone = {"include_dashboard": False} if address == "local" else {}
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR", **alone)
    except Exception as error:  # Ray has several, and changes them
        raise _refusal(address, error) from None
    try:
        yield
    finally:
        ray.shutdown()


def _check_answers(address: str) -> None:
    """Refuse an address where nothing listens: Ray itself asks for minutes. UsageError."""
    named = re.fullmatch(r"\[?([^\[\]]+?)\]?:(\d{1,5})", address)
    if named is None:
        if address not in ("auto", "local") and not address.startswith("ray://"):
            known = "HOST:PORT of its head, auto or local"
            raise UsageError(f"{option('--cluster')} {printable(address)}: expected {known}")
        return
    try:
        socket.create_connection((named[1], int(named[2])), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise _refusal(address, error) from None


def _refusal(address: str, error: Exception) -> UsageError:
    """Return what to say of a cluster that cannot be had, or not by this Ray and Python."""
    where = "this machine" if address == "auto" else printable(address)
    told = " ".join(str(error).split())
    if "version mismatch" in told.lower():
        how = "install the same Ray and Python on all machines"
        return UsageError(f"the Ray cluster at {where}: {how} ({printable(told, 300)})")
    start = "`ray start --head` starts one, docs/scale.md says how"
    return UsageError(f"no Ray cluster at {where}: {start} ({reason(error)})")


def cpus_of_nodes() -> list[int]:
    """Return the CPUs of each living node that has any."""
    import ray

    found = (int(n["Resources"].get("CPU", 0)) for n in ray.nodes() if n["Alive"])
    return sorted(n for n in found if n > 0)


def room() -> str:
    """Say what the cluster has and what of it is free."""
    import ray

    free, all_ = ray.available_resources(), ray.cluster_resources()
    cpus = f"{free.get('CPU', 0):g} of {all_.get('CPU', 0):g} CPUs"
    return f"{cpus} and {free.get('memory', 0) / 1e9:.1f} GB of memory are free"


def here() -> str:
    """Return this node's name: its address and the beginning of its number in the cluster."""
    import ray

    return f"{ray.util.get_node_ip_address()}/{ray.get_runtime_context().get_node_id()[:6]}"


@contextmanager
def alone_on_node() -> Iterator[None]:
    """Wait until no other actor of this node is in here."""
    try:
        import fcntl
    except ImportError:  # Windows: then each compiles
        yield
        return
    folder = user_cache_dir()
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "cluster.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
