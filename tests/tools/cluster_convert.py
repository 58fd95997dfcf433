"""Kill tasks, a node and the driver of a cluster conversion at random; compare with local bytes.

``python tests/tools/cluster_convert.py SOURCE [TYPE] [SPLIT] [KILLS]``: on four nodes in this
machine. It prints each kill, what each node's processes took of memory, and at the end whether all
files are the same, byte for byte. Not a test itself: minutes.
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

from clustermaker import Nodes


def main(source, kind="Q4_K_M", split="10M", kills=8):
    """Return 0 where the killed run's files are the undisturbed one's."""
    chance, folder = random.Random(1), Path(tempfile.mkdtemp())
    command = [sys.executable, "-m", "ggq", "convert", source]
    more = ["-t", kind, "--split-max-size", split, "-j", "1"]
    subprocess.run([*command, str(folder / "local.gguf"), *more, "-q"], check=True)
    done = {"task": 0, "node": 0, "driver": 0}
    nodes = Nodes(3)
    with contextlib.closing(nodes):
        begin = [*command, str(folder / "out.gguf"), *more, "--cluster", nodes.address]
        driver = subprocess.Popen(begin)
        while not list(folder.glob("out-*")):
            if driver.poll() is not None:
                driver = subprocess.Popen(begin)
            at_work = nodes.workers("_run")
            if not at_work or sum(done.values()) >= kills:
                time.sleep(0.05)
                continue
            time.sleep(chance.uniform(0, 1))
            what = chance.choices(("task", "driver", "node"), (6, 3, 1))[0]
            if what == "task":
                with contextlib.suppress(ProcessLookupError):
                    os.kill(chance.choice(at_work), signal.SIGKILL)
            elif what == "driver":
                driver.kill()
                driver.wait()
            else:
                nodes.kill_node(nodes.nodes[0])
                nodes.replace()
            done[what] += 1
            made = len(list(folder.glob("*.unfinished-*/*.sha256")))
            print(f"killed {what}; {made} files are done", flush=True)
        driver.wait()
    ours, theirs = (sorted(folder.glob(f"{name}-*.gguf")) for name in ("out", "local"))
    same = [p.read_bytes() for p in ours] == [p.read_bytes() for p in theirs]
    print(f"kills {done}, {len(theirs)} files: {'the same bytes' if same else 'OTHER bytes'}")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:4], *map(int, sys.argv[4:])))
