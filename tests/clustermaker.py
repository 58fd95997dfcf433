"""A Ray cluster of two nodes in this machine, and requests of mixed shapes. Not a test itself.

``python tests/clustermaker.py`` says whether such a cluster begins on this machine.
"""

import contextlib
import json
import os
from pathlib import Path

from ggq.cluster.connect import connected

_EACH = {"num_cpus": 1, "memory": 4_000_000_000, "object_store_memory": 200_000_000}


class Nodes:
    """The cluster, until a ``with`` ends: a head that works and ``n`` more nodes, one CPU each."""

    def __init__(self, n=1):
        from ray.cluster_utils import Cluster

        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_raylet_start_wait_time_s", "120")  # a busy machine
        os.environ.setdefault("RAY_worker_niceness", "0")  # 15 starves where others compute
        os.environ.setdefault("RAY_health_check_timeout_ms", "170000")  # one that stands is alive
        head = {
            "num_cpus": 1,
            "memory": 4_000_000_000,
            "object_store_memory": 200_000_000,
            "include_dashboard": False,
        }
        self._cluster = Cluster(initialize_head=True, head_node_args=head)
        self.address = self._cluster.address
        self.nodes: list = []  # that may be killed
        for _ in range(n):
            self.replace()

    def add(self):
        """Begin another node."""
        return self._cluster.add_node(**_EACH)

    def replace(self):
        """Begin a node, in the place of one that was killed; a busy machine needs several tries."""
        for last in (False, False, True):
            try:
                self.nodes.append(self.add())
                return
            except Exception:
                if last:
                    raise

    def kill_node(self, node):
        """End a node as a power failure does: its process and all that it began."""
        self._cluster.remove_node(node, allow_graceful=False)
        self.nodes.remove(node)

    def workers(self, name):
        """Return the processes that Ray named so, such as ``Answerer.work``: of this cluster."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                title = (entry / "cmdline").read_bytes()
                port = self.address.rpartition(":")[2].encode()
                if title.startswith(b"ray::" + name.encode()):
                    parent = (entry / "stat").read_text().rsplit(")", 1)[1].split()[1]
                    if port in Path(f"/proc/{parent}/cmdline").read_bytes():
                        found.append(int(entry.name))
        return found

    def driver(self):
        """Return a context in which this process is a driver of the cluster."""
        return connected(self.address)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._cluster.shutdown()


def write_requests(path, n, longest=7):
    """Write ``n`` lines of several kinds at temperature 0, two of them wrong; return the path.

    Answers have up to ``longest`` tokens.
    """
    lines = []
    for i in range(n):
        chat = {"messages": [{"role": "user", "content": f"hi {i}"}]}
        parts = {"messages": [{"role": "user", "content": [{"type": "text", "text": f"say {i}"}]}]}
        kinds = (
            ("/v1/chat/completions", chat),
            ("/v1/completions", {"prompt": f"the {i}", "logprobs": 2}),
            ("/v1/chat/completions", parts),
        )
        url, body = kinds[i % 3]
        body |= {"temperature": 0, "max_tokens": 1 + i % longest}
        lines.append(json.dumps({"custom_id": f"r{i}", "url": url, "body": body}))
    lines[n // 3] = "no json"
    lines[n // 2] = json.dumps({"custom_id": "p", "url": "/v1/completions", "body": {"prompt": {}}})
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


if __name__ == "__main__":
    with Nodes() as begun, begun.driver():
        print(f"Ray began a cluster at {begun.address}")
