"""Load on a running server: streaming clients, their tokens per second and the gaps between tokens.

    python benchmarks/serve_load.py http://127.0.0.1:8080 --clients 32 --seconds 60 --kill 10

Gaps during which the whole machine stood still (as a second thread sees it) are left out, and told.
``--kill``: further clients, processes of their own that end by kill -9 in the middle of an answer.
``--pid``: the server's, to follow its memory (Linux).
"""

import argparse
import asyncio
import json
import random
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

import httpx

QUESTIONS = ("a cat", "the sea", "a robot", "an old clock")
VICTIM = """
import socket, sys
host, port, body = sys.argv[1:]
head = f"POST /v1/chat/completions HTTP/1.1\\r\\nHost: localhost\\r\\nContent-Length: {len(body)}"
with socket.create_connection((host, int(port))) as connection:
    connection.sendall(f"{head}\\r\\n\\r\\n{body}".encode())
    while part := connection.recv(1000):
        print(part.decode(), flush=True)
"""  # starts quickly: what a start takes away from the server would look like a stall
FREEZE = 0.15  # seconds that a sleep of 10 ms may take before the machine counts as frozen


class Load:
    """The clients of one run and what they saw."""

    def __init__(self, url: str, max_tokens: int):
        self.url, self.max_tokens = f"{url.rstrip('/')}/v1/chat/completions", max_tokens
        self.statuses: Counter[int] = Counter()
        self.gaps: list[float] = []
        self.first: list[float] = []
        self.tokens = 0
        self.freezes: list[tuple[float, float]] = []
        self.memory: list[float] = []  # MB of the server, every second
        self.killed = 0
        self.errors: list[Exception] = []

    def follow(self, pid: int) -> None:
        """Note the server's resident memory."""
        while True:
            status = Path(f"/proc/{pid}/status").read_text()
            self.memory.append(int(re.search(r"VmRSS:\s+(\d+)", status).group(1)) / 1e3)
            time.sleep(1)

    async def kill(self, pause: float) -> None:
        """Start a client after ``pause`` seconds; kill it in the middle of its answer."""
        await asyncio.sleep(pause)
        messages = [{"role": "user", "content": "Tell a story."}]
        body = {"messages": messages, "stream": True, "max_tokens": 400, "ignore_eos": True}
        address = urlsplit(self.url)
        given = [address.hostname, str(address.port), json.dumps(body)]
        command = [sys.executable, "-I", "-S", "-c", VICTIM, *given]
        victim = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
        try:
            lines = [await victim.stdout.readline() for _ in range(40)]
            self.killed += lines[-1] != b""
        finally:
            victim.kill()
            await victim.wait()

    def watch(self) -> None:
        """Note when the machine stands still."""
        last = time.monotonic()
        while True:
            time.sleep(0.01)
            now = time.monotonic()
            if now - last > FREEZE:
                self.freezes.append((last, now))
            last = now

    async def client(self, number: int, end: float) -> None:
        """Ask, read the stream, ask again, until the time is over."""
        rng = random.Random(number)
        async with httpx.AsyncClient(timeout=600) as client:
            while time.monotonic() < end:
                await self.ask(client, number, rng)

    async def ask(self, client: httpx.AsyncClient, number: int, rng: random.Random) -> None:
        """Stream one answer; prompts are short or long."""
        text = f"Story {rng.random()} of {rng.choice(QUESTIONS)}, please. "
        message = {"role": "user", "content": text * rng.choice((1, 1, 30, 120))}
        body = {"messages": [message], "stream": True, "max_tokens": self.max_tokens}
        asked, last = time.monotonic(), 0.0
        async with client.stream("POST", self.url, json={**body, "user": str(number)}) as reply:
            self.statuses[reply.status_code] += 1
            if reply.status_code != 200:
                await reply.aread()
                await asyncio.sleep(float(reply.headers.get("retry-after", 1)))
                return
            async for line in reply.aiter_lines():
                if not line.startswith("data: {"):
                    continue
                choices = json.loads(line[6:]).get("choices")
                if not choices or not choices[0]["delta"].get("content"):
                    continue
                now = time.monotonic()
                self.tokens += 1
                if not last:
                    self.first.append(now - asked)
                elif not any(a < now and b > last for a, b in self.freezes[-50:]):
                    self.gaps.append(now - last)
                last = now

    async def run(self, clients: int, seconds: float, kill: int) -> float:
        """Run all clients, then hang up on what is under way; return the seconds."""
        threading.Thread(target=self.watch, daemon=True).start()
        started = time.monotonic()
        end = started + seconds
        work = [self.client(i, end) for i in range(clients)]
        work += [self.kill(i * seconds / (2 * kill)) for i in range(kill)]
        tasks = [asyncio.create_task(one) for one in work]
        await asyncio.wait(tasks, timeout=seconds)
        for task in tasks:
            task.cancel()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        self.errors = [e for e in done if isinstance(e, Exception)]
        return time.monotonic() - started

    def left(self) -> str:
        """Return what the server still works on: nothing, a moment after the last answer."""
        time.sleep(1)
        text = httpx.get(self.url.replace("/v1/chat/completions", "/metrics")).text
        found = re.findall(r"^ggq_(requests_\w+|cancelled_total|failed_total) (\S+)$", text, re.M)
        return ", ".join(f"{name} {float(value):.0f}" for name, value in found)

    def report(self, seconds: float) -> None:
        """Print what was seen."""
        gaps = sorted(self.gaps)
        mean = sum(gaps) / len(gaps)
        at = {p: 1e3 * gaps[min(int(len(gaps) * p / 100), len(gaps) - 1)] for p in (50, 99, 100)}
        print(f"status {dict(self.statuses)}; broken connections: {self.errors}")
        print(f"{self.tokens} pieces in {seconds:.1f} s")
        print(f"{self.tokens / seconds:.1f} pieces per second")
        print(
            f"gaps: mean {1e3 * mean:.1f} ms, " + ", ".join(f"p{p} {t:.1f}" for p, t in at.items())
        )
        stalls = sum(gap > 3 * mean for gap in gaps)
        print(f"stalls longer than three mean gaps: {stalls} of {len(gaps)}")
        print(f"first token after {sum(self.first) / len(self.first):.2f} s on average")
        print(f"the machine stood still {sum(b - a for a, b in self.freezes):.1f} s")
        print(f"{self.killed} clients killed; afterwards {self.left()}")
        if self.memory:
            size = len(self.memory)
            shown = (self.memory[i * (size - 1) // 6] for i in range(7))
            print("memory in MB, from start to end:", " ".join(f"{m:.0f}" for m in shown))


def main() -> None:
    """Read the arguments, run, report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--kill", type=int, default=0, help="clients to kill, spread over the time")
    parser.add_argument("--pid", type=int, help="of the server, to follow its memory")
    given = parser.parse_args()
    load = Load(given.url, given.max_tokens)
    if given.pid:
        threading.Thread(target=load.follow, args=(given.pid,), daemon=True).start()
    load.report(asyncio.run(load.run(given.clients, given.seconds, given.kill)))


if __name__ == "__main__":
    main()
