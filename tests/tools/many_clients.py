"""Thirty-two clients over two models: `python tests/tools/many_clients.py [SECONDS]`.

Tiny models, a real server in this process; clients chat, stream, leave early, send nonsense, ask by
every interface. Prints requests by status, and threads, memory and open files at the quarters.
"""

import http.client
import json
import os
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

import uvicorn  # noqa: E402
from ggufmaker import make_tiny_llama  # noqa: E402
from servers import HI  # noqa: E402

from ggq.runtime.server.app import create_app  # noqa: E402
from ggq.runtime.server.hosting.catalogue import Catalogue  # noqa: E402
from ggq.runtime.server.hosting.many import ManyModels  # noqa: E402
from ggq.runtime.server.hosting.opening import Opener  # noqa: E402
from ggq.runtime.server.settings import Settings  # noqa: E402

CLIENTS = 32
BODIES = (
    ("/v1/chat/completions", {"messages": HI, "max_tokens": 12}),
    ("/v1/chat/completions", {"messages": HI, "max_tokens": 40, "stream": True}),
    ("/v1/completions", {"prompt": ["a", "bc"], "max_tokens": 6}),
    ("/v1/responses", {"input": "hi", "max_output_tokens": 9, "stream": True}),
    ("/v1/messages", {"messages": HI, "max_tokens": 9, "stream": True}),
    ("/v1/embeddings", {"input": ["a", "the rain"]}),
    ("/embedding", {"content": "a"}),
    ("/api/chat", {"messages": HI, "options": {"num_predict": 9}}),
    ("/api/v0/chat/completions", {"messages": HI, "max_tokens": 9}),
    ("/completion", {"prompt": "a", "n_predict": 9}),
    ("/v1/chat/completions", {"messages": "nonsense"}),
)


def ask(port, number, seen, rng):
    """Send one request, read its answer or go away amid it."""
    path, body = rng.choice(BODIES)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    try:
        body = {**body, "model": f"m{rng.randrange(2)}", "user": str(number)}
        key = {"authorization": f"Bearer {number}"}
        connection.request("POST", path, json.dumps(body), key)
        reply = connection.getresponse()
        if rng.random() < 0.15:
            reply.read(1)
            seen["left early"] += 1
            return
        text = reply.read()
        wrong = b"server_error" in text or b"api_error" in text
        seen[f"{reply.status}{' with an error inside' if wrong else ''}"] += 1
    finally:
        connection.close()


def standing():
    """Return threads, megabytes of memory and open files of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    files = len(os.listdir("/proc/self/fd"))
    return f"{threading.active_count()} threads, {pages * 4096 / 2**20:.0f} MiB, {files} files"


def main(seconds=60.0):
    """Run the clients; return 1 where anything was answered with a 5xx."""
    with tempfile.TemporaryDirectory() as name:
        for i in range(2):
            make_tiny_llama(Path(name) / f"m{i}.gguf", n_ctx=512, vocab="bpe", seed=i)
        opener = Opener(Settings(), {"n_ctx": 256, "threads": 1}, n_slots=4)
        host = ManyModels(Catalogue(Path(name)), opener)
        server = uvicorn.Server(uvicorn.Config(create_app(host), port=0, log_config=None))
        running = threading.Thread(target=server.run)
        running.start()
        while not server.started:
            time.sleep(0.05)
        port = server.servers[0].sockets[0].getsockname()[1]
        seen, end = Counter(), time.monotonic() + seconds

        def client(number):
            rng = random.Random(number)
            while time.monotonic() < end:
                ask(port, number, seen, rng)

        threads = [threading.Thread(target=client, args=(i,)) for i in range(CLIENTS)]
        for thread in threads:
            thread.start()
        for quarter in range(1, 5):
            time.sleep(max(end - seconds * (1 - quarter / 4) - time.monotonic(), 0))
            print(f"{quarter}/4: {sum(seen.values())} requests; {standing()}", flush=True)
        for thread in threads:
            thread.join()
        time.sleep(1)
        left = [(s.n_running, s.n_waiting) for s in host.schedulers()]
        print(f"{dict(seen)}; running and waiting: {left}; {standing()}")
        server.should_exit = True
        running.join()
    return int(any(status.startswith("5") or "inside" in status for status in seen))


if __name__ == "__main__":
    sys.exit(main(*map(float, sys.argv[1:2])))
