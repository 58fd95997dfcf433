"""Kill workers, a node and the driver of a cluster's run at random; compare with the local bytes.

  python tests/tools/cluster_kills.py batch --kills 20 --requests 500
  python tests/tools/cluster_kills.py convert SOURCE --type Q4_K_M --split-max-size 20M

The first on two nodes in this machine, the second on four, with any options of ``ggq convert``. It
prints each kill, the most memory that a worker took, and at the end whether every file is the
undisturbed run's, byte for byte. Not a test itself: minutes.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from clustermaker import Nodes, write_requests
from ggufmaker import make_tiny_llama

GGQ = [sys.executable, "-m", "ggq"]
_KINDS = {"worker": 6, "driver": 3, "node": 1}  # how often which, of ten
_LOOK = 0.05  # seconds


class Trouble:
    """What happens to one run: ``kills`` of them, each up to ``every`` seconds after work is seen.

    ``title``: how Ray calls the processes that work.
    """

    def __init__(self, cluster, title, kills, every, seed):
        self.cluster, self.title, self.kills, self.every = cluster, title, kills, every
        self.done, self.failed, self.peak = Counter(), 0, 0
        self._replacing = threading.Thread()
        self._chance = random.Random(seed)

    def over(self, command, is_done, progress):
        """Run until it is done, begun again whenever its driver has died."""
        driver = subprocess.Popen(command)
        while not is_done():
            if driver.poll() is not None and not is_done():
                self.failed += driver.returncode > 0
                if self.failed > self.kills:
                    sys.exit("it does not get further")
                driver = subprocess.Popen(command)
            if self.done.total() < self.kills and self._at_work():
                until = time.monotonic() + self._chance.uniform(0, self.every)
                while time.monotonic() < until and not is_done():
                    self._at_work()
                    time.sleep(_LOOK)
                if not is_done() and (kind := self._kill(driver)):
                    self.done[kind] += 1
                    print(f"killed {kind}; {progress()}", flush=True)
            else:
                time.sleep(_LOOK)
        driver.wait()
        if self._replacing.ident:
            self._replacing.join()

    def _at_work(self):
        """Return the processes that work, and look how much memory they have had."""
        found = self.cluster.workers(self.title)
        for pid in found:
            with suppress(OSError, IndexError, ValueError):
                told = Path(f"/proc/{pid}/status").read_text().partition("VmHWM:")[2]
                self.peak = max(self.peak, int(told.split()[0]) * 1024)
        return found

    def _kill(self, driver):
        """Return what was killed, None where nothing was there."""
        (kind,) = self._chance.choices([*_KINDS], [*_KINDS.values()])
        if kind == "driver":
            if driver.poll() is not None:
                return None
            driver.kill()
            driver.wait()
        elif kind == "node":
            if self._replacing.is_alive() or not self.cluster.nodes:
                return None
            self.cluster.kill_node(self.cluster.nodes[0])
            self._replacing = threading.Thread(target=self.cluster.replace)
            self._replacing.start()
        else:
            at_work = self._at_work()
            if not at_work:
                return None
            try:
                os.kill(self._chance.choice(at_work), signal.SIGKILL)
            except ProcessLookupError:
                return None
        return kind

    def __str__(self):
        kinds = ", ".join(f"{kind} {n} times" for kind, n in self.done.most_common())
        memory = f"{self.peak / 1e6:.0f} MB of memory a worker at most"
        return f"killed {kinds or 'nothing'}; {self.failed} runs ended with an error; {memory}"


def batch(given, folder, options):
    """Return the folders of both runs, and what happened to the second."""
    path = make_tiny_llama(folder / "t.gguf", n_ctx=512, vocab="bpe")
    source = write_requests(folder / "in.jsonl", given.requests, longest=60)
    model = ["-m", str(path), "-c", "256", "-t", "1", "-q", *options]
    here, there = folder / "here" / "out.jsonl", folder / "there" / "out.jsonl"
    subprocess.run([*GGQ, "batch", str(source), str(here), *model], check=False)  # two are wrong
    with Nodes(1) as cluster:
        trouble = Trouble(cluster, "Answerer.work", given.kills, given.every or 0.3, given.seed)
        command = [*GGQ, "batch", str(source), str(there), *model, "--cluster", cluster.address]
        parts = there.parent / "out.jsonl.parts"
        trouble.over(command, there.exists, lambda: f"{len(list(parts.glob('0*')))} parts are done")
    return here.parent, there.parent, trouble


def convert(given, folder, options):
    """Return the folders of both runs, and what happened to the second."""
    here, there = folder / "here", folder / "there"
    ask = [*GGQ, "convert", os.path.abspath(given.source)]
    subprocess.run([*ask, str(here / "out.gguf"), *options, "-q"], check=True)
    names = {path.name for path in here.iterdir()}
    with Nodes(3) as cluster:
        trouble = Trouble(cluster, "_run", given.kills, given.every or 4, given.seed)
        command = [*ask, str(there / "out.gguf"), *options, "-j", "1", "-q"]
        command += ["--cluster", cluster.address]

        def progress():
            kept = [p.suffix for p in there.glob("*.unfinished-*/*")]
            what = {".sha256": "files", ".npy": "solved matrices", ".npz": "sums of importance"}
            found = (f"{kept.count(end)} {name}" for end, name in what.items() if end in kept)
            return f"{', '.join(found) or 'nothing'} done"

        trouble.over(command, lambda: {p.name for p in there.iterdir()} == names, progress)
    return here, there, trouble


def main():
    """Return 0 where the killed run's files are the undisturbed one's."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--kills", type=int, default=20)
    common.add_argument("--every", type=float, help="seconds from work to a kill, at most")
    common.add_argument("--seed", type=int, default=1)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("batch", parents=[common], help="options of ggq batch may follow")
    one.add_argument("--requests", type=int, default=500)
    one.set_defaults(run=batch)
    two = commands.add_parser("convert", parents=[common], help="options of ggq convert may follow")
    two.add_argument("source")
    two.set_defaults(run=convert)
    given, options = parser.parse_known_args()
    with tempfile.TemporaryDirectory(prefix="kills-") as name:
        folder = Path(name)
        for half in ("here", "there"):
            (folder / half).mkdir()
        here, there, trouble = given.run(given, folder, options)
        made = [{p.name: p.read_bytes() for p in one.iterdir()} for one in (here, there)]
    same = made[0] == made[1]
    print(f"{trouble}\n{len(made[0])} files: {'the same bytes' if same else 'OTHER bytes'}")
    if trouble.done.total() < given.kills:
        print(f"it was done before the {given.kills}th kill: take more work, or a shorter --every")
        return 1
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
