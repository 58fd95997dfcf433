"""Of a first hour: the server's models, APIs and end, and Python (points 10, 11, 13, 14)."""

import json
import signal
import subprocess
import time
import urllib.error

from hour.walk import asked, told

HI = [{"role": "user", "content": "Say hi."}]
READ = (
    "/", "/health", "/metrics", "/props", "/slots", "/lora-adapters", "/v1/models", "/api/tags",
    "/api/ps", "/api/version", "/api/v0/models",
)  # fmt: skip
ASKED = {
    "/v1/chat/completions": {"messages": HI, "max_tokens": 4},
    "/v1/completions": {"prompt": "The sea", "max_tokens": 4},
    "/v1/responses": {"input": "hi", "max_output_tokens": 4},
    "/v1/messages": {"messages": HI, "max_tokens": 4},
    "/v1/messages/count_tokens": {"messages": HI},
    "/v1/embeddings": {"input": ["a", "b"]},
    "/completion": {"prompt": "The sea", "n_predict": 4},
    "/embedding": {"content": "a"},
    "/tokenize": {"content": "The sea"},
    "/apply-template": {"messages": HI},
    "/api/chat": {"messages": HI, "options": {"num_predict": 4}, "stream": False},
    "/api/generate": {"prompt": "The sea", "options": {"num_predict": 4}, "stream": False},
    "/api/embed": {"input": "a"},
    "/api/show": {},
    "/api/v0/chat/completions": {"messages": HI, "max_tokens": 4},
}
# What a model is asked from Python, in the user's own environment.
PROGRAM = """
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
import ggq
path, text = sys.argv[1:]
with ggq.load(path, n_ctx=1024) as model:
    def ask(word):
        question = [{"role": "user", "content": f"What is {word}?"}]
        return "".join(model.chat(question, max_tokens=12, temperature=0))
    words = ["water", "fire", "air", "earth"]
    alone = [ask(word) for word in words]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(ask, words)) == alone
    *_, last = model.chat([{"role": "user", "content": "hi"}], max_tokens=3, details=True)
    assert last.finish_reason in ("stop", "length") and last.usage.completion_tokens <= 3
    assert "".join(model.generate("The sea is", grammar='root ::= " blue"')) == " blue"
    told = []
    for call in (
        lambda: model.chat([{"role": "user", "content": "hi"}], tempo=1),
        lambda: list(model.chat([{"role": "user"}])),
        lambda: ggq.evaluate(path, text),
    ):
        try:
            call()
        except Exception as error:
            told.append(str(error))
    assert len(told) == 3 and "tempo" in told[0] and not any("\\n" in x for x in told), told
    print(repr(model))
    print(*told, sep="; ")
print(type(ggq.evaluate(path, Path(text))).__name__)
"""


def from_python(walk, model):
    """Use a model from four threads, ask for details, make mistakes."""
    text = walk.folder / "long.txt"
    text.write_text("The sea is deep and full of fish, and the sky is high above it. " * 60)
    done = subprocess.run(
        [walk.python, "-c", PROGRAM, model, str(text)],
        capture_output=True, text=True, env=walk.env, cwd=walk.folder, timeout=walk.patience,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    shown, mistakes, _ = done.stdout.strip().splitlines()
    walk.saw("14", f"four threads get what one gets; {shown}")
    walk.saw("14", mistakes)


def interfaces(walk, folder):
    """Ask every interface of a server with two models; load, list and unload."""
    with walk.serving("--models-dir", folder, "--keep-alive", "1h") as (_, url):
        names = [m["id"] for m in json.loads(told(f"{url}/v1/models")[1])["data"]]
        assert len(names) >= 2, names
        for path, body in ASKED.items():
            status, text = told(url + path, {"model": names[0], **body})
            assert status == 200, (path, status, text)
        for path in READ:
            status, text = told(url + path)
            assert status == 200, (path, status, text)
        walk.saw("11", f"{len(ASKED) + len(READ)} paths of OpenAI, Anthropic, Ollama, "
                       "llama-server and LM Studio answer")  # fmt: skip
        assert told(url + "/v1/chat/completions", {"model": names[1], "messages": HI,
                                                   "max_tokens": 2})[0] == 200  # fmt: skip
        assert names[0] in walk.run("ps", "--server", url)[0]
        walk.run("stop", names[0], "--server", url)
        _, text = told(url + "/v1/chat/completions", {"model": "nope", "messages": HI})
        assert json.loads(text)["error"]["message"].count("\n") == 0
        walk.saw("10", f"a folder of {len(names)} models: loaded by name, ggq ps, ggq stop")


def many_turns(walk):
    """Overflow the context by request: refused with the numbers, cut where it is asked for."""
    turns = [{"role": role, "content": "The sea is deep. " * 20}
             for role in ("user", "assistant", "user", "assistant")]  # fmt: skip
    body = {"messages": [*turns, *HI], "max_tokens": 4}
    with walk.serving(walk.model, "-c", "128") as (_, url):
        status, text = told(f"{url}/v1/chat/completions", body)
        assert status == 400 and "n_ctx" in text, text
        reply = asked(f"{url}/v1/chat/completions", {**body, "truncation": "auto"})
        with reply:
            assert reply.status == 200 and reply.headers["x-ggq-notes"]
            walk.saw("2", f"truncation: auto answers, and says: {reply.headers['x-ggq-notes']}")


def the_end(walk, seconds=1.0):
    """SIGTERM: every open stream gets its error event, then the process ends, within a second."""
    options = {"temperature": 0, "num_predict": 4000}
    paths = ("/v1/chat/completions", "/v1/messages", "/v1/responses", "/api/chat")
    with walk.serving(walk.model, "--logit-bias", "2=-100", "-c", "4096") as (server, url):
        streams = []
        for path in paths:
            body = {"model": "any", "messages": HI, "stream": True, "max_tokens": 4000}
            if path == "/v1/responses":
                body = {"model": "any", "input": "hi", "stream": True}
            if path == "/api/chat":
                body = {"model": "any", "messages": HI, "stream": True, "options": options}
            streams.append(asked(url + path, body))
            streams[-1].readline()
        started = time.monotonic()
        server.send_signal(signal.SIGTERM)
        server.wait(walk.patience)
        took = time.monotonic() - started
        for path, stream in zip(paths, streams, strict=True):
            with stream:
                assert b"shutting down" in stream.read(), path
    assert took < seconds, took
    assert server.returncode == -signal.SIGTERM
    try:
        asked(f"{url}/health")
    except urllib.error.URLError:
        pass
    else:
        raise AssertionError("something still answers")
    walk.saw("13", f"SIGTERM: {len(paths)} streams end with an error event, all in {took:.2f} s")
