"""Malformed requests: whatever is sent, the answer is not a 5xx and the server lives on.

GGQ_FUZZ_EXAMPLES sets how many requests each of the four tests sends: 3400 make 10,200 to all APIs.
"""

import json
import os

import pytest

pytest.importorskip("starlette", reason="the extra serve is not installed")
pytest.importorskip("httpx", reason="starlette's test client needs it")
pytest.importorskip("hypothesis")

from ggufmaker import make_tiny_llama
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from requestmaker import FIELDS, JUNK
from servers import CHAT, HI, serving

import ggq

EXAMPLES = int(os.environ.get("GGQ_FUZZ_EXAMPLES", 120))
SETTINGS = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize="GGQ_FUZZ_EXAMPLES" not in os.environ,
    suppress_health_check=list(HealthCheck),
)
PATHS = (
    CHAT,
    "/v1/completions",
    "/v1/embeddings",
    "/v1/responses",
    "/v1/messages",
    "/v1/messages/count_tokens",
    "/tokenize",
    "/detokenize",
    "/apply-template",
    "/completion",
    "/infill",
    "/api/chat",
    "/api/generate",
    "/api/embed",
    "/api/embeddings",
    "/api/show",
    "/api/v0/chat/completions",
    "/api/v0/completions",
    "/api/v0/embeddings",
    "/embedding",
    "/embeddings",
    "/v1/rerank",
    "/models/load",
    "/models/unload",
    "/lora-adapters",
    "/page/render",
)


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    path = make_tiny_llama(
        tmp_path_factory.mktemp("tiny") / "t.gguf", n_ctx=512, vocab="bpe", n_layer=1
    )
    with ggq.load(path, n_ctx=2048, threads=1) as model, serving(model, max_tokens=3) as client:
        yield client


def good(path):
    """Return a body that is answered, to be spoilt."""
    if path in ("/v1/completions", "/api/v0/completions"):
        return {"prompt": "the"}
    if path in ("/v1/embeddings", "/api/v0/embeddings", "/embeddings", "/v1/responses"):
        return {"input": "the"}
    if is_ollama(path):
        options = {"num_predict": 2}
        return {"model": "m", "messages": HI, "prompt": "the", "input": "the", "options": options}
    if path in ("/completion", "/infill"):
        return {"prompt": "the", "n_predict": 2}
    return {"messages": HI, "content": "the", "tokens": [5], "max_tokens": 2}


def is_ollama(path):
    return path.startswith("/api/") and not path.startswith("/api/v0")


def send(client, path, body):
    found = client.post(path, content=json.dumps(body).encode("utf-8", "surrogatepass"))
    assert found.status_code < 500, (path, body, found.text)
    if found.status_code >= 400:
        error = found.json()["error"]
        message = error if is_ollama(path) else error["message"]
        assert message
        assert "\n" not in message
    elif body.get("stream") is True:
        assert '"server_error"' not in found.text, (path, body, found.text)


@SETTINGS
@given(data=st.data())
def test_spoilt_fields(client, data):
    path = data.draw(st.sampled_from(PATHS))
    names = data.draw(st.sets(st.sampled_from(sorted(FIELDS)), min_size=1, max_size=3))
    body = {**good(path), **{name: data.draw(FIELDS[name]) for name in names}}
    send(client, path, body)


@SETTINGS
@given(path=st.sampled_from(PATHS), body=st.dictionaries(st.sampled_from(sorted(FIELDS)), JUNK))
def test_junk_in_known_fields(client, path, body):
    send(client, path, body)


@SETTINGS
@given(path=st.sampled_from(PATHS), body=st.binary(max_size=100))
def test_any_bytes(client, path, body):
    found = client.post(path, content=body)
    good = path == "/lora-adapters" and body.strip() == b"[]"  # no adapters: nothing to set
    assert good or 400 <= found.status_code < 500, (path, body, found.text)


@SETTINGS
@given(path=st.text(max_size=30), method=st.sampled_from(["GET", "POST", "PUT", "DELETE"]))
def test_any_path(client, path, method):
    from urllib.parse import quote

    found = client.request(method, "/" + quote(path))
    assert found.status_code < 500
    assert client.get("/health").status_code == 200
