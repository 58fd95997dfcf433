"""What the steps of a first hour share: where all lies, how ggq is called, what has been seen."""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SHORT = "smollm2-135m"


@dataclass
class Walk:
    """A user's place: an empty folder, an environment with ggq, a home without anything in it."""

    folder: Path
    python: str = sys.executable
    model: str = SHORT
    patience: float = 600.0  # seconds for anything
    seen: list = field(default_factory=list)
    env: dict = field(default_factory=dict)

    def __post_init__(self):
        """Make the folder and the home."""
        self.folder.mkdir(parents=True, exist_ok=True)
        cache = Path(os.environ.get("GGQ_CACHE") or self.folder / "cache")
        own = {"HOME": self.folder / "home", "GGQ_CACHE": cache, "HF_HOME": cache / "hf"}
        own = {name: str(path) for name, path in own.items()}
        for name in ("NO_COLOR", "PYTHONPATH", "VIRTUAL_ENV"):
            os.environ.pop(name, None)
        self.env = {**os.environ, **own, "PYTHONWARNINGS": "default", **self.env}

    @property
    def ggq(self):
        """The words that call ggq."""
        script = Path(self.python).with_name("ggq")
        return [str(script)] if script.exists() else [self.python, "-m", "ggq"]

    def saw(self, point, what):
        """Note that a point of the list was seen to hold."""
        self.seen.append((point, what))
        sys.stdout.write(f"point {point:<3} {what}\n")
        sys.stdout.flush()

    def run(self, *words, code=0, given=None, **env):
        """Run ggq; return (stdout, stderr). ``given`` is what is piped in."""
        done = subprocess.run(
            [*self.ggq, *map(str, words)],
            input=given, stdin=subprocess.DEVNULL if given is None else None,
            capture_output=True, text=True, timeout=self.patience, cwd=self.folder,
            env={**self.env, **env},
        )  # fmt: skip
        assert done.returncode == code, (words, done.returncode, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr, done.stderr
        return done.stdout, done.stderr

    def refused(self, *words, code=1, **env):
        """Run ggq with something wrong; return the one line that it says."""
        _, err = self.run(*words, code=code, **env)
        lines = [x for x in err.splitlines() if x and not x.startswith(("Usage:", "Try '"))]
        assert len(lines) == 1, lines
        return lines[0]

    @contextlib.contextmanager
    def serving(self, *words):
        """Yield (process, address) of ``ggq serve``."""
        command = [*self.ggq, "serve", *map(str, words)]
        command += [] if "--port" in command else ["--port", "0"]
        server = subprocess.Popen(
            command, stderr=subprocess.PIPE, text=True, cwd=self.folder, env=self.env
        )
        try:
            said = ""
            while not (found := re.search(r"listening on (http://\S+)", said)):
                line = server.stderr.readline()
                assert line, said
                said += line
            threading.Thread(target=server.stderr.read, daemon=True).start()
            yield server, found[1]
        finally:
            server.kill()
            server.wait()


def asked(url, body=None, **headers):
    """Return a reply that is open: of a GET, or of a POST of ``body`` as JSON."""
    data = None if body is None else json.dumps(body).encode()
    headers = {"content-type": "application/json", **headers}
    return urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=300)


def told(url, body=None):
    """Return (status, text) of a reply, also of one that is an error."""
    try:
        with asked(url, body) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as e:
        return e.code, e.read().decode()


def tool(name):
    """Return the path of a program, or None: beside this Python first."""
    beside = Path(sys.executable).with_name(name)
    return str(beside) if beside.exists() else shutil.which(name)


def until(condition, seconds=60.0):
    """Wait for a condition and return what it is."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
    return found
