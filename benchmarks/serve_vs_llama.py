"""Chats at the same time: ``ggq serve`` beside llama-server on one file, in turns.

    python benchmarks/serve_vs_llama.py MODEL.gguf --llama-server PATH [--clients 4] [--rounds 3]

Each round streams one answer to every client at once and counts tokens per second from the first
request to the last token; then a long system prompt is sent twice, to see what the second costs.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import statistics
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

QUESTIONS = ("a cat", "the sea", "a robot", "an old clock")
PORTS = {"ggq": 18580, "llama": 18581}
CTX = 2048


def start(name: str, given: argparse.Namespace) -> subprocess.Popen:
    """Start a server and wait until it answers."""
    common = ["--port", str(PORTS[name])]
    threads, slots = str(given.threads), str(given.clients)
    if name == "ggq":
        command = [sys.executable, "-m", "ggq", "serve", given.model, *common]
        command += ["-t", threads, "--parallel", slots, "-c", str(CTX)]
    else:
        command = [given.llama_server, "-m", given.model, *common, "-t", threads, "-tb", threads]
        command += ["-np", slots, "-c", str(CTX * given.clients), "--no-webui"]
    log = Path(given.log_folder) / f"{name}.log"
    with log.open("wb") as out:
        server = subprocess.Popen(command, stdout=out, stderr=out)
    end = time.monotonic() + 120
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"http://127.0.0.1:{PORTS[name]}/health", timeout=5).read()
            return server
        if server.poll() is not None:
            break
        time.sleep(0.1)
    server.kill()
    raise SystemExit(f"{name} does not start: see {log}")


async def ask(port: int, body: dict) -> tuple[float, int, dict]:
    """Stream one answer; return (seconds to the first text, tokens, timings)."""
    text = json.dumps({**body, "stream": True, "stream_options": {"include_usage": True}}).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(text)}\r\n"
    )
    asked = time.perf_counter()
    writer.write(f"{head}Content-Type: application/json\r\n\r\n".encode() + text)
    status = await reader.readline()
    if b" 200 " not in status:
        raise SystemExit(f"{status!r} {await reader.read(2000)!r}")
    first, usage, timings = 0.0, {}, {}
    async for line in reader:
        if not first and b'"delta"' in line and b'"content":"' in line:
            content = json.loads(line[6:])["choices"][0]["delta"].get("content")
            first = time.perf_counter() - asked if content else 0.0
        if b'"completion_tokens"' in line:
            last = json.loads(line[6:])
            usage, timings = last["usage"], last.get("timings", {})
        if line.startswith(b"data: [DONE]"):
            break
    writer.close()
    return first, usage["completion_tokens"], timings


def chat(text: str, n_tokens: int, system: str = "") -> dict:
    """Return the body of a request for exactly ``n_tokens``."""
    messages = [{"role": "user", "content": text}]
    if system:
        messages.insert(0, {"role": "system", "content": system})
    return {"messages": messages, "max_tokens": n_tokens, "ignore_eos": True, "temperature": 0.8}


async def together(port: int, given: argparse.Namespace) -> float:
    """Return tokens per second of all clients."""
    bodies = [
        chat(f"Tell story {random.random()} of {QUESTIONS[i % 4]}.", given.tokens)
        for i in range(given.clients)
    ]
    started = time.perf_counter()
    answers = await asyncio.gather(*(ask(port, body) for body in bodies))
    return sum(n for _, n, _ in answers) / (time.perf_counter() - started)


async def prefix(port: int, n_words: int) -> tuple[float, float]:
    """Return the seconds to the first token of a long system prompt, new and repeated."""
    words = " ".join(random.choice(QUESTIONS) for _ in range(n_words))
    new, _, _ = await ask(port, chat("Hello", 4, words))
    again, _, _ = await ask(port, chat("Who are you?", 4, words))
    return new, again


def main() -> None:
    """Read the arguments, run, print one line per measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--llama-server", help="without it only ggq is measured")
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=128, help="of each answer")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--words", type=int, default=600, help="of the long system prompt")
    parser.add_argument("--log-folder", default=os.environ.get("TMPDIR", "/tmp"))
    given = parser.parse_args()
    names = ["ggq"] + ["llama"] * bool(given.llama_server)
    rates: dict[str, list[float]] = {name: [] for name in names}
    firsts: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    servers = {}
    try:
        for name in names:
            servers[name] = start(name, given)
        for turn in range(given.rounds + 1):  # the first one warms up
            for name in names:
                rate = asyncio.run(together(PORTS[name], given))
                first = asyncio.run(prefix(PORTS[name], given.words))
                if turn:
                    rates[name].append(rate)
                    firsts[name].append(first)
    finally:
        for server in servers.values():
            server.terminate()
            server.wait()
    for name in names:
        found = " ".join(f"{rate:.1f}" for rate in rates[name])
        new, again = (statistics.median(pair) for pair in zip(*firsts[name], strict=True))
        print(f"{name}: {statistics.median(rates[name]):.1f} tokens per second ({found})")
        print(f"{name}: first token {new:.3f} s, repeated {again:.3f} s, {100 * again / new:.1f} %")
    if "llama" in rates:
        ratio = statistics.median(rates["ggq"]) / statistics.median(rates["llama"])
        print(f"ggq / llama-server: {ratio:.2f}")


if __name__ == "__main__":
    main()
