"""What the server refuses: wrong values, too long prompts, full queues, keys, origins, hosts."""

import pytest

pytest.importorskip("starlette", reason="the extra serve is not installed")
pytest.importorskip("httpx", reason="starlette's test client needs it")

from servers import CHAT, HI, serving


def chat(client, **body):
    return client.post(CHAT, json={"messages": HI, "max_tokens": 8, "temperature": 0, **body})


BAD = [
    ("temperature", -1),
    ("temperature", "hot"),
    ("temperature", True),
    ("top_p", 1.5),
    ("top_k", 2.5),
    ("min_p", -0.1),
    ("repeat_penalty", 0),
    ("presence_penalty", 1e300),
    ("frequency_penalty", None, 200),
    ("n", 0),
    ("n", 17),
    ("max_tokens", 0),
    ("max_tokens", -2),
    ("max_tokens", 1.5),
    ("max_completion_tokens", 2**40),
    ("top_logprobs", 21),
    ("seed", -7),
    ("seed", 2**64),
    ("stop", 7),
    ("stop", ["x"] * 257),
    ("logit_bias", {"x": 1}),
    ("logit_bias", {"99999": 1}),
    ("logit_bias", {"5": 101}),
    ("samplers", "nonsense"),
    ("mirostat", 3),
    ("tool_choice", "sometimes"),
    ("tool_choice", {"function": {"name": "missing"}}),
    ("tools", [{"type": "function"}]),
    ("tools", [{"type": "function", "function": {"name": "a b"}}]),
    ("response_format", {"type": "xml"}),
    ("response_format", {"type": "json_schema"}),
    ("grammar", "start: 7"),
    ("grammar", "root ::= ("),
    ("messages", []),
    ("messages", "hi"),
    ("messages", [{"content": "x"}]),
    ("messages", [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]),
    ("chat_template_kwargs", {"messages": []}),
    ("stream", "yes"),
]


@pytest.mark.parametrize("case", BAD, ids=lambda case: f"{case[0]}={str(case[1])[:20]}")
def test_bad_values_name_their_field(client, case):
    name, *values = case
    found = chat(client, **{name: values[-1]} if values[-1] != 200 else {name: None})
    if values[-1] == 200:  # null is as good as nothing
        assert found.status_code == 200
        return
    error = found.json()["error"]
    assert found.status_code == 400, found.text
    assert error["type"] == "invalid_request_error"
    assert error["param"].split("[")[0].split(".")[0] == name
    assert name in error["message"]
    assert "\n" not in error["message"]


def test_prompt_over_context(client):
    found = chat(client, messages=[{"role": "user", "content": "x" * 2000}])
    error = found.json()["error"]
    assert found.status_code == 400
    assert error["type"] == "exceed_context_size_error"
    assert error["n_prompt_tokens"] > 2000
    assert error["n_ctx"] == 1024
    assert str(error["n_prompt_tokens"]) in error["message"]


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"7", b"\xff", b"[" * 100_000, b'{"messages": NaN}', b"null"]
)
def test_no_json(client, body):
    found = client.post(CHAT, content=body)
    assert found.status_code == 400
    assert found.json()["error"]["message"]


def test_unknown_paths_and_methods(client):
    assert client.get("/nothing").status_code == 404
    refused = client.get(CHAT)
    assert refused.status_code == 405
    assert refused.json()["error"]["type"] == "invalid_request_error"
    assert "error" in client.get("/nothing").json()


def test_limits(model):
    with serving(model, max_body=2000, max_tokens=3) as client:
        assert chat(client).json()["usage"]["completion_tokens"] == 3
        assert chat(client, user="x" * 3000).status_code == 413
        stream = (b"x" * 1000 for _ in range(5))
        assert client.post(CHAT, content=stream).status_code == 413


def test_full_queue(model):
    from ggq.runtime.batching.scheduler import Scheduler

    scheduler = Scheduler(model.engine, model.tokenizer, n_slots=1, max_waiting=0)
    with serving(model, scheduler) as client:
        found = client.post("/v1/completions", json={"prompt": ["a", "b", "c"]})
        assert found.status_code == 429
        assert int(found.headers["retry-after"]) >= 1
        assert found.json()["error"]["type"] == "rate_limit_error"
        assert chat(client).status_code == 200


def test_keys(model, caplog):
    with serving(model, api_keys=("sk-one", "sk-two")) as client, caplog.at_level("DEBUG"):
        assert client.get("/health").status_code == 200
        for headers in ({}, {"authorization": "Bearer sk-three"}, {"authorization": "sk-one"}):
            found = client.get("/v1/models", headers=headers)
            assert found.status_code == 401
            assert found.json()["error"]["type"] == "authentication_error"
        for headers in ({"authorization": "Bearer sk-one"}, {"x-api-key": "sk-two"}):
            assert client.get("/v1/models", headers=headers).status_code == 200
    assert "sk-" not in caplog.text
    with serving(model) as client:
        headers = {"authorization": "Bearer anything"}
        assert client.get("/v1/models", headers=headers).status_code == 200


def test_origins_and_hosts(model):
    evil = {"origin": "https://evil.example"}
    with serving(model) as client:
        assert chat(client).headers.get("access-control-allow-origin") is None
        found = client.post(CHAT, json={"messages": HI}, headers=evil)
        assert found.status_code == 403
        assert client.options(CHAT, headers=evil).status_code == 403
        same = {"origin": "http://testserver"}
        assert client.get("/v1/models", headers=same).status_code == 200
    with serving(model, origins=("https://good.example",)) as client:
        good = {"origin": "https://good.example"}
        found = client.options(CHAT, headers=good)
        assert found.status_code == 204
        assert found.headers["access-control-allow-origin"] == "https://good.example"
        assert client.get("/v1/models", headers=good).status_code == 200
        assert client.get("/v1/models", headers=evil).status_code == 403
    with serving(model, hosts=("localhost",)) as client:
        assert client.get("/health").status_code == 403  # testserver: as if by DNS rebinding
        assert client.get("/health", headers={"host": "localhost:80"}).status_code == 200


def test_errors_inside_stay_inside(model, monkeypatch, caplog):
    with serving(model) as client:
        monkeypatch.setattr(client.scheduler.engine, "step", lambda parts: 1 / 0)
        found = chat(client)
        assert found.status_code == 500
        assert "ZeroDivision" not in found.text
        streamed = chat(client, stream=True).text
        assert '"error"' in streamed
        assert "ZeroDivision" not in streamed
    assert "ZeroDivisionError" in caplog.text
