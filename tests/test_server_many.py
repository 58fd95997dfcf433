"""Many models behind one server: loaded by name, unloaded by time, by request and for room."""

import gc
import os
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

pytest.importorskip("starlette", reason="the extra serve is not installed")
pytest.importorskip("httpx", reason="starlette's test client needs it")

from ggufmaker import make_tiny_llama
from servers import CHAT, HI, events
from starlette.testclient import TestClient

from ggq.errors import UsageError
from ggq.runtime.server.app import create_app
from ggq.runtime.server.hosting.catalogue import Catalogue
from ggq.runtime.server.hosting.many import ManyModels
from ggq.runtime.server.hosting.opening import Opener
from ggq.runtime.server.settings import Settings

LONG = {"messages": HI, "stream": True, "max_tokens": 200, "ignore_eos": True}
LONG["stream_options"] = {"include_usage": True}
SHORT = {"messages": HI, "max_tokens": 3, "temperature": 0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three models, one in a folder below, and what is none."""
    folder = tmp_path_factory.mktemp("models")
    (folder / "org").mkdir()
    for seed, name in enumerate(("a.gguf", "b.gguf", "org/c-Q8_0.gguf")):
        make_tiny_llama(folder / name, n_ctx=512, vocab="bpe", n_layer=1, seed=seed)
    (folder / "mmproj-a.gguf").write_bytes(b"no model")
    (folder / "broken.gguf").write_bytes(b"GGUF but no more")
    return folder


class Serving:
    """A client of many models, and the host behind it."""

    def __init__(self, folder, keep=300.0, budget=None, **options):
        opener = Opener(Settings(), {"n_ctx": 256, "threads": 1, **options}, n_slots=2)
        self.host = ManyModels(Catalogue(folder), opener, keep, budget)
        self.needs = opener.needs
        self._client = TestClient(create_app(self.host), raise_server_exceptions=False)

    def __enter__(self):
        self.client = self._client.__enter__()
        return self

    def __exit__(self, *error):
        self._client.__exit__(*error)

    def ask(self, name, path=CHAT, **more):
        return self.client.post(path, json={"model": name, **SHORT, **more})

    def states(self):
        data = self.client.get("/v1/models").json()["data"]
        return {entry["id"]: entry["status"]["value"] for entry in data}

    def loaded(self):
        return sorted(name for name, state in self.states().items() if state == "loaded")

    def settle(self, condition, seconds=20.0):
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, "it does not come about"
            time.sleep(0.01)


@pytest.fixture
def serving(folder):
    with Serving(folder) as serving:
        yield serving


def test_models_are_loaded_by_name(serving):
    assert serving.states() == dict.fromkeys(["a", "b", "broken", "org/c-Q8_0"], "unloaded")
    answers = {name: serving.ask(name) for name in ("a", "b", "ORG/c-q8_0:latest")}
    assert all(found.status_code == 200 for found in answers.values()), answers
    texts = {f.json()["choices"][0]["message"]["content"] for f in answers.values()}
    assert len(texts) == 3, "each model says something else"
    assert serving.loaded() == ["a", "b", "org/c-Q8_0"]
    running = serving.client.get("/api/ps").json()["models"]
    assert sorted(m["name"] for m in running) == ["a:latest", "b:latest", "org/c-Q8_0:latest"]
    assert len(serving.client.get("/api/tags").json()["models"]) == 4


def test_wrong_names_and_files_are_told(serving):
    for path in (CHAT, "/api/chat", "/v1/messages", "/models/load", "/models/unload"):
        found = serving.ask("nothing", path)
        assert found.status_code == 404 and "nothing" in found.text, path
    found = serving.ask("broken")
    assert found.status_code == 400 and "GGUF" in found.json()["error"]["message"]
    nameless = serving.client.post(CHAT, json=SHORT)
    assert nameless.status_code == 400 and "there are: a, b" in nameless.text
    assert serving.ask("../a").status_code == 404
    serving.ask("b")
    assert serving.client.post(CHAT, json=SHORT).json()["choices"], "the one that is loaded"
    with pytest.raises(UsageError, match="no folder"):
        Catalogue(Path("/nowhere/at/all"))


def test_load_unload_and_keep_alive(serving):
    ask, settle = serving.ask, serving.settle
    assert ask("a", "/models/load").json() == {"success": True}
    assert serving.loaded() == ["a"]
    assert ask("a", "/models/unload").json() == {"success": True}
    settle(lambda: serving.loaded() == [])
    ask("a", "/api/chat", keep_alive=0)
    settle(lambda: serving.loaded() == [])
    ask("a", "/api/chat", keep_alive=-1)
    ask("b", "/api/chat", keep_alive="1h")
    expiries = {m["name"]: m["expires_at"] for m in serving.client.get("/api/ps").json()["models"]}
    assert [expiries[f"{name}:latest"].startswith("2318") for name in "ab"] == [True, False]
    body = {"model": "b", "keep_alive": 0}
    assert serving.client.post("/api/generate", json=body).json()["done_reason"] == "unload"
    settle(lambda: serving.loaded() == ["a"])
    counted = serving.client.get("/metrics").text
    assert "ggq_models_loaded 1.0" in counted and "ggq_finished_total 3.0" in counted


def test_unused_models_go(folder):
    with Serving(folder, keep=0.05) as serving:
        serving.ask("a")
        serving.settle(lambda: serving.loaded() == [])
        assert serving.ask("a").status_code == 200


def test_room_is_made_for_the_newcomer(folder):
    with Serving(folder) as probe:
        probe.ask("a")
        (needs,) = (m["size"] for m in probe.client.get("/api/ps").json()["models"])
    with Serving(folder, budget=int(2.5 * needs)) as serving:
        for name in ("a", "b", "a", "org/c-Q8_0"):
            assert serving.ask(name).status_code == 200
        assert serving.loaded() == ["a", "org/c-Q8_0"], "b was used least recently"
    with Serving(folder, budget=needs // 2) as serving:
        found = serving.ask("a")
        assert found.status_code == 503 and "--memory" in found.text
        assert serving.states()["a"] == "unloaded"


def test_a_model_in_use_is_not_taken_away(folder):
    with Serving(folder, budget=1) as probe:
        probe.host._budget = None
        probe.ask("a")
        (needs,) = (m["size"] for m in probe.client.get("/api/ps").json()["models"])
    with Serving(folder, budget=int(1.5 * needs)) as serving, ThreadPoolExecutor(4) as pool:
        long = [pool.submit(serving.ask, "a", **LONG) for _ in range(2)]
        serving.settle(lambda: serving.loaded() == ["a"])
        other = pool.submit(serving.ask, "b")
        again = pool.submit(serving.ask, "a")
        for answer in long:
            assert events(answer.result())[-1]["usage"]["completion_tokens"] == 200
        assert other.result().status_code == again.result().status_code == 200


def test_loading_does_not_hold_up_streams(folder, monkeypatch):
    with Serving(folder) as serving, ThreadPoolExecutor(2) as pool:
        serving.ask("a")
        held, begun = threading.Event(), threading.Event()
        real = Opener.open

        def slow(self, path):
            begun.set()
            assert held.wait(30)
            return real(self, path)

        monkeypatch.setattr(Opener, "open", slow)
        other = pool.submit(serving.ask, "b")
        assert begun.wait(30)
        assert events(serving.ask("a", **LONG))[-1]["usage"]["completion_tokens"] == 200
        assert serving.states()["b"] == "loading" and not other.done()
        held.set()
        assert other.result().status_code == 200


def nothing_lives(references):
    """Whether all that weak references name is gone."""
    gc.collect()
    return all(reference() is None for reference in references)


def test_memory_comes_back(folder):
    with Serving(folder, draft="ngram") as serving:
        for _ in range(2):
            serving.ask("a")
            (service,) = serving.host.services()
            held = service.model, service.scheduler.engine.cache, service.model.tokenizer
            gone = partial(nothing_lives, [weakref.ref(thing) for thing in held])
            del service, held
            serving.ask("a", "/models/unload")
            serving.settle(lambda: serving.loaded() == [])
            # The closing thread lets go a moment after the model is off the list.
            serving.settle(gone)
            if os.path.exists("/proc/self/maps"):
                assert str(folder / "a.gguf") not in Path("/proc/self/maps").read_text()


def test_many_clients_of_two_models(folder):
    with Serving(folder) as serving, ThreadPoolExecutor(32) as pool:
        alone = {n: serving.ask(n).json()["choices"][0]["message"]["content"] for n in "ab"}
        before = threading.active_count()
        names = ["a", "b"] * 32
        found = list(pool.map(serving.ask, names))
        assert {f.status_code for f in found} == {200}
        for name, answer in zip(names, found, strict=True):
            assert answer.json()["choices"][0]["message"]["content"] == alone[name]
        assert sum(s.n_running + s.n_waiting for s in serving.host.schedulers()) == 0
        assert threading.active_count() <= before + 32 + 40  # the pool's, asyncio's
