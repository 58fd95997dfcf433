"""Kill actors, a node and the driver of a cluster batch at random; compare with the local bytes.

``python tests/tools/cluster_kills.py [KILLS] [REQUESTS]``: on two nodes in this machine. It prints
each kill, and at the end whether the file is the same, byte for byte. Not a test itself: minutes.
"""

import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from clustermaker import two_nodes, write_requests
from ggufmaker import make_tiny_llama


def main(kills=20, n=500):
    """Return 0 where the killed run's file is the undisturbed one's."""
    chance, folder = random.Random(1), Path(tempfile.mkdtemp())
    path = make_tiny_llama(folder / "t.gguf", n_ctx=512, vocab="bpe")
    source, out = write_requests(folder / "in.jsonl", n), folder / "out.jsonl"
    command = [sys.executable, "-m", "ggq", "batch", str(source)]
    model = ["-m", str(path), "-c", "256", "-t", "1", "-q"]
    subprocess.run([*command, str(folder / "local.jsonl"), *model], check=False)
    done = {"actor": 0, "node": 0, "driver": 0}
    with two_nodes() as cluster:
        begin = [*command, str(out), *model, "--cluster", cluster.address]
        driver = subprocess.Popen(begin)
        while sum(done.values()) < kills and not out.exists():
            if driver.poll() is not None:
                driver = subprocess.Popen(begin)
            at_work = cluster.workers("Answerer.work")
            if not at_work:
                time.sleep(0.05)
                continue
            time.sleep(chance.uniform(0, 0.3))
            kind = chance.choices(("actor", "driver", "node"), (6, 3, 1))[0]
            if kind == "actor":
                with contextlib.suppress(ProcessLookupError):
                    os.kill(chance.choice(at_work), signal.SIGKILL)
            elif kind == "driver":
                driver.kill()
                driver.wait()
            else:
                cluster.kill_node(cluster.nodes[0])
                cluster.replace()
            done[kind] += 1
            parts = len(list(folder.glob("out.jsonl.parts/0*")))
            print(f"killed {kind}; {parts} parts are done", flush=True)
        driver.wait()
        while not out.exists():
            subprocess.run(begin, check=False)
    same = out.read_bytes() == (folder / "local.jsonl").read_bytes()
    print(f"kills {done}, {n} requests: {'the same bytes' if same else 'OTHER bytes'}")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
