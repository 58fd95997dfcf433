"""The server with a hostile mind: files, memory of what was said, floods of text, slow keys."""

import json
import logging
import sys

import pytest

pytest.importorskip("starlette", reason="the extra serve is not installed")
pytest.importorskip("httpx", reason="starlette's test client needs it")

from ggufmaker import make_tiny_llama
from servers import CHAT, HI, serving

import ggq

SECRET = "/etc/passwd"
PATHS = {
    "model": SECRET,
    "user": f"../../..{SECRET}",
    "grammar": f'start: "a"\n%import {SECRET}',
    "json_schema": {"$ref": f"file://{SECRET}"},
    "chat_template": "{% include '/etc/passwd' %}",
    "chat_template_kwargs": {"template": SECRET, "x": f"file://{SECRET}"},
    "response_format": {"type": "json_schema", "json_schema": {"schema": {"$ref": SECRET}}},
    "tools": [{"type": "function", "function": {"name": SECRET}}],
    "stop": [SECRET],
    "lora": [{"path": SECRET}],
    "slot_save_path": SECRET,
}
PART = {"type": "image_url", "image_url": {"url": f"file://{SECRET}"}}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = make_tiny_llama(tmp_path_factory.mktemp("tiny") / "t.gguf", vocab="bpe", n_ctx=256)
    with ggq.load(path, n_ctx=1024, threads=1) as model:
        yield model


@pytest.fixture(scope="module")
def client(model):
    with serving(model) as client:
        yield client


@pytest.fixture(scope="module")
def opened():
    """The names of all files that this process opens from now on."""
    names, on = [], [True]

    def hear(event, args):
        if event == "open" and on:
            names.append(str(args[0]))

    sys.addaudithook(hear)
    yield names
    on.clear()


@pytest.mark.parametrize("field", sorted(PATHS))
def test_no_path_in_a_request_opens_a_file(client, opened, field):
    body = {"messages": HI, "max_tokens": 2, field: PATHS[field]}
    del opened[:]
    found = client.post(CHAT, json=body)
    assert found.status_code in (200, 400)
    assert [name for name in opened if "passwd" in name] == []
    assert "root:" not in found.text


def test_no_address_and_no_page_opens_a_file(client, opened):
    del opened[:]
    for path in (
        f"/v1/models/{SECRET}",
        "/..%2f..%2fetc/passwd",
        "/page.html",
        "/%2e%2e/settings.py",
    ):
        assert client.get(path).status_code == 404
    for content in ([PART], [{"type": "file", "file": {"file_data": SECRET}}]):
        body = {"messages": [{"role": "user", "content": content}]}
        assert client.post(CHAT, json=body).status_code == 400
    assert [name for name in opened if "passwd" in name or name.endswith("settings.py")] == []


def test_logs_hold_no_words_and_no_keys(model, caplog):
    caplog.set_level(logging.DEBUG)
    headers = {"authorization": "Bearer sk-hidden"}
    with serving(model, api_keys=("sk-hidden",)) as client:
        for body in ({"messages": HI, "max_tokens": 2}, {"messages": "hidden"}, {"prompt": 1}):
            text = json.dumps({**body, "user": "hidden-user", "stop": ["hidden-stop"]})
            client.post(CHAT + "?key=hidden-query", content=text, headers=headers)
        client.get("/hidden-path", headers=headers)
        assert client.get("/v1/models", headers={"x-api-key": "hidden-wrong"}).status_code == 401
    own = [r.getMessage() for r in caplog.records if r.name.startswith(("ggq", "uvicorn"))]
    assert len(own) == 5
    assert [line for line in own if "hidden" in line] == []


def test_keys_are_compared_in_constant_time(model, monkeypatch):
    seen = []
    from ggq.runtime.server import app

    compare = app.secrets.compare_digest
    monkeypatch.setattr(app.secrets, "compare_digest", lambda a, b: seen.append(b) or compare(a, b))
    with serving(model, api_keys=("one", "two")) as client:
        for given in ("one", "two", "on", "zwei", ""):
            client.get("/v1/models", headers={"authorization": f"Bearer {given}"})
    assert seen == [b"one", b"two"] * 5  # all keys, whichever fits


@pytest.mark.parametrize("path", [CHAT, "/v1/completions", "/v1/embeddings", "/v1/messages"])
def test_a_flood_of_text_is_refused_before_it_costs(model, client, monkeypatch, path):
    text = "word " * 200_000
    calls = []
    kind = type(model.tokenizer)
    encode = kind.encode

    def listened(self, text, *given, **named):
        calls.append(text)
        return encode(self, text, *given, **named)

    monkeypatch.setattr(kind, "encode", listened)
    body = {"messages": [{"role": "user", "content": text}], "max_tokens": 2}
    found = client.post(path, json={**body, "prompt": text, "input": text})
    assert found.status_code == 400
    assert f"more than the context of {client.scheduler.n_ctx}" in found.text
    assert sum(map(len, calls)) < 1000


def test_cors_is_closed(client):
    found = client.get("/v1/models", headers={"origin": "https://evil.example"})
    assert found.status_code == 403
    assert "access-control-allow-origin" not in found.headers
    found = client.options(CHAT, headers={"origin": "https://evil.example"})
    assert found.status_code == 403
