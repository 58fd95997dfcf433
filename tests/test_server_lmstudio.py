"""LM Studio's /api/v0, and llama-server's own form of vectors."""

import json

import numpy as np
import pytest

pytest.importorskip("starlette", reason="the extra serve is not installed")
pytest.importorskip("httpx", reason="starlette's test client needs it")

from ggufmaker import make_tiny_llama
from servers import HI, events, saying, serving

import ggq

V0 = "/api/v0"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = make_tiny_llama(tmp_path_factory.mktemp("tiny") / "t.gguf", n_ctx=64, vocab="bpe")
    with ggq.load(path, n_ctx=256, threads=1) as model:
        yield model


@pytest.fixture(scope="module")
def client(model):
    with serving(model, model_id="org/tiny") as client:
        yield client


def test_models(client):
    (entry,) = client.get(f"{V0}/models").json()["data"]
    assert entry["id"] == "org/tiny" and entry["publisher"] == "org"
    assert (entry["type"], entry["arch"], entry["state"]) == ("llm", "llama", "loaded")
    assert entry["max_context_length"] == entry["loaded_context_length"] == 64
    assert client.get(f"{V0}/models/org/tiny").json() == entry
    assert client.get(f"{V0}/models/other").status_code == 404


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(
    ("path", "body"),
    [("chat/completions", {"messages": HI}), ("completions", {"prompt": "a"})],
    ids=["chat", "text"],
)
def test_answers_say_how_fast(client, path, body, stream):
    body = {**body, "max_tokens": 4, "temperature": 0, "ignore_eos": True, "stream": stream}
    reply = client.post(f"{V0}/{path}", json=body)
    found = events(reply)[-1] if stream else reply.json()
    assert found["usage"]["completion_tokens"] == 4
    stats = found["stats"]
    assert stats["stop_reason"] == "maxPredictedTokensReached"
    assert min(stats["tokens_per_second"], stats["time_to_first_token"]) > 0
    assert found["model_info"]["arch"] == "llama"
    assert found["model_info"]["context_length"] == 64
    assert found["runtime"]["name"] == "ggq"
    plain = client.post(f"/v1/{path}", json=body)
    assert "stats" not in (events(plain)[-1] if stream else plain.json())


def test_why_answers_end(client, model):
    body = {"messages": HI, "ignore_eos": True}
    reply = client.post(f"{V0}/chat/completions", json=body).json()
    assert reply["stats"]["stop_reason"] == "contextLengthReached"
    with saying(model, "one two") as client:
        for more, why in (({}, "eosFound"), ({"stop": " two"}, "stopStringFound")):
            reply = client.post(f"{V0}/chat/completions", json={"messages": HI, **more}).json()
            assert reply["stats"]["stop_reason"] == why


def test_vectors_as_llama_server_gives_them(client, model):
    plain = client.post("/v1/embeddings", json={"input": ["a", "b c"]}).json()["data"]
    found = client.post("/embedding", json={"content": ["a", "b c"]}).json()
    assert [x["index"] for x in found] == [0, 1]
    for one, other in zip(found, plain, strict=True):
        assert np.allclose(one["embedding"][0], other["embedding"], atol=1e-6)
    raw = model.embed(["a"], normalize=False)[0].astype(np.float64)
    sizes = {
        -1: 1.0,
        0: np.abs(raw).max() / 32760,
        1: np.abs(raw).sum(),
        3: np.cbrt((np.abs(raw) ** 3).sum()),
    }
    for how, size in sizes.items():
        body = {"content": "a", "embd_normalize": how}
        (one,) = client.post("/embedding", json=body).json()
        assert np.allclose(one["embedding"][0], raw / size, rtol=1e-4, atol=1e-9), how


def test_vectors_in_either_form(client):
    theirs = client.post("/embeddings", json={"content": "a"}).json()
    ours = client.post("/embeddings", json={"input": "a"}).json()
    assert isinstance(theirs, list) and ours["object"] == "list"
    for body, field in (
        ({}, "content"),
        ({"content": []}, "content"),
        ({"content": [[]]}, "content"),
    ):
        reply = client.post("/embedding", content=json.dumps(body))
        assert reply.status_code == 400 and field in reply.json()["error"]["message"], reply.text
    assert client.post("/embeddings", content=b"[]").status_code == 400
