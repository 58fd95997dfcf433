"""Ollama's interface: shapes of answers, streams of lines, tools, thoughts, formats, mistakes."""

import json

import pytest

pytest.importorskip("starlette", reason="the extra serve is not installed")
pytest.importorskip("httpx", reason="starlette's test client needs it")

from ggufmaker import make_tiny_llama
from servers import HI, WEATHER, saying, serving

import ggq
from ggq.errors import UsageError
from ggq.runtime.server.hosting.durations import parse_duration

SHORT = {"num_predict": 4, "temperature": 0}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = make_tiny_llama(
        tmp_path_factory.mktemp("tiny") / "t.gguf", n_ctx=512, vocab="bpe", n_layer=1
    )
    with ggq.load(path, n_ctx=2048, threads=1) as model:
        yield model


@pytest.fixture(scope="module")
def client(model):
    with serving(model) as client:
        yield client


def ask(client, path, **body):
    found = client.post(path, json={"model": "tiny", **body})
    assert found.status_code == 200, found.text
    return found


def lines(response):
    assert response.headers["content-type"].startswith("application/x-ndjson")
    return [json.loads(text) for text in response.text.splitlines()]


def test_a_stream_ends_with_its_numbers(client):
    *parts, last = lines(ask(client, "/api/chat", messages=HI, options=SHORT))
    assert all(p["done"] is False and p["message"]["role"] == "assistant" for p in parts)
    assert all(p["model"] == "tiny" and p["created_at"].endswith("Z") for p in [*parts, last])
    assert last["done"] is True and last["done_reason"] == "length"
    assert last["eval_count"] == 4 and last["prompt_eval_count"] > 2
    assert last["total_duration"] >= last["eval_duration"] > 0 and last["load_duration"] >= 0


def test_streamed_or_not_the_answer_is_one(client):
    body = {"messages": HI, "options": SHORT}
    streamed = lines(ask(client, "/api/chat", **body))
    whole = ask(client, "/api/chat", **body, stream=False).json()
    assert whole["message"]["content"] == "".join(p["message"]["content"] for p in streamed)
    ours = {"messages": HI, "max_tokens": 4, "temperature": 0}
    openai = client.post("/v1/chat/completions", json=ours).json()
    assert openai["choices"][0]["message"]["content"] == whole["message"]["content"]


def test_generate_goes_through_the_template_or_not(client):
    of_template = ask(client, "/api/generate", prompt="hi", options=SHORT, stream=False).json()
    chat = ask(client, "/api/chat", messages=HI, options=SHORT, stream=False).json()
    assert of_template["response"] == chat["message"]["content"]
    raw = ask(client, "/api/generate", prompt="the", raw=True, options=SHORT, stream=False).json()
    ours = {"prompt": "the", "max_tokens": 4, "temperature": 0}
    text = client.post("/v1/completions", json=ours).json()["choices"][0]["text"]
    assert raw["response"] == text and raw["done_reason"] == "length"


def test_thoughts_and_calls(model):
    text = (
        "<think>which city</think>one moment\n"
        '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Bern"}}\n</tool_call>\n'
        '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Rome"}}\n</tool_call>'
    )
    with saying(model, text) as client:
        body = {"messages": HI, "tools": [WEATHER], "think": True}
        message = ask(client, "/api/chat", **body, stream=False).json()["message"]
        parts = [p["message"] for p in lines(ask(client, "/api/chat", **body))]
    assert message["thinking"] == "which city" and message["content"].strip() == "one moment"
    calls = [call["function"] for call in message["tool_calls"]]
    assert [c["arguments"] for c in calls] == [{"city": "Bern"}, {"city": "Rome"}]
    assert [(c["index"], c["name"]) for c in calls] == [(0, "get_weather"), (1, "get_weather")]
    streamed = [c["function"] for p in parts for c in p.get("tool_calls", ())]
    assert streamed == calls
    assert "".join(p.get("thinking", "") for p in parts) == "which city"


def test_formats_hold(client):
    schema = {
        "type": "object",
        "properties": {"ok": {"type": "boolean"}},
        "required": ["ok"],
        "additionalProperties": False,
    }
    whole = ask(client, "/api/chat", messages=HI, format=schema, stream=False).json()
    assert set(json.loads(whole["message"]["content"])) == {"ok"}
    other = ask(
        client, "/api/generate", prompt="x", format="json", options={"num_predict": 1}, stream=False
    ).json()
    assert other["response"].lstrip().startswith("{")


def test_logprobs(client):
    body = {"messages": HI, "options": SHORT, "logprobs": True, "top_logprobs": 2}
    found = ask(client, "/api/chat", **body, stream=False).json()["logprobs"]
    assert len(found) == 4 and all(len(entry["top_logprobs"]) == 2 for entry in found)
    assert all(entry["logprob"] <= 0 for entry in found)


def test_models_are_listed(client, model):
    (tag,) = client.get("/api/tags").json()["models"]
    assert tag["name"] == tag["model"] == "tiny:latest" and len(tag["digest"]) == 64
    assert tag["details"]["format"] == "gguf" and tag["details"]["family"] == "llama"
    assert tag["size"] == model.gguf.nbytes
    (running,) = client.get("/api/ps").json()["models"]
    assert running["context_length"] == client.scheduler.n_ctx and running["expires_at"]
    about = ask(client, "/api/show").json()
    assert about["capabilities"][0] == "completion" and "tools" not in about["capabilities"]
    assert about["model_info"]["general.architecture"] == "llama"
    assert client.get("/api/version").json()["version"].count(".") == 2


def test_the_server_has_sampling_of_its_own(model):
    with serving(model, sampling={"temperature": 0.0, "top_k": 3}) as client:
        body = {"prompt": "the", "n_predict": 1, "top_k": 5}
        found = client.post("/completion", json=body).json()["generation_settings"]
    assert found["temperature"] == 0 and found["top_k"] == 5 and found["min_p"] == 0.05


def test_nothing_asked_loads_the_model(client):
    assert ask(client, "/api/chat").json()["done_reason"] == "load"
    assert ask(client, "/api/generate").json()["done_reason"] == "load"


def test_embeddings(client, model):
    one = ask(client, "/api/embed", input=["the", "other"]).json()
    assert len(one["embeddings"]) == 2 and one["prompt_eval_count"] >= 2
    assert abs(sum(x * x for x in one["embeddings"][0]) - 1) < 1e-4
    older = ask(client, "/api/embeddings", prompt="the").json()["embedding"]
    scale = sum(x * x for x in older) ** 0.5
    assert [x / scale for x in older] == pytest.approx(one["embeddings"][0], abs=1e-5)
    assert ask(client, "/api/embed", input="").json()["embeddings"] == []


@pytest.mark.parametrize(
    ("path", "body", "word"),
    [
        ("/api/chat", {"messages": HI, "options": {"temperature": "hot"}}, "options.temperature"),
        ("/api/chat", {"messages": HI, "options": {"num_predict": 0}}, "num_predict"),
        ("/api/chat", {"messages": HI, "think": "a lot"}, "think"),
        ("/api/chat", {"messages": HI, "format": "yaml"}, "format"),
        ("/api/chat", {"messages": HI, "keep_alive": "soon"}, "keep_alive"),
        (
            "/api/chat",
            {"messages": [{"role": "user", "content": "x", "images": ["a"]}]},
            "pictures",
        ),
        ("/api/generate", {"prompt": "x", "template": "{{ x }}"}, "template"),
        ("/api/generate", {"prompt": "x", "suffix": "y"}, "fim_pre"),
        ("/api/chat", {"messages": HI, "model": ""}, "model"),
        ("/api/pull", {}, "one model"),
    ],
)
def test_mistakes_are_named(client, path, body, word):
    found = client.post(path, json={"model": "tiny", **body})
    assert found.status_code == 400 and word in found.json()["error"], found.text


def test_what_has_no_effect_is_told(client):
    options = {**SHORT, "num_gpu": 1, "num_ctx": 10**6}
    body = {"messages": HI, "options": options, "keep_alive": "5m", "stream": False}
    notes = ask(client, "/api/chat", **body).headers["x-ggq-notes"]
    assert all(word in notes for word in ("options.num_gpu", "num_ctx", "keep_alive"))
    refused = client.post("/api/create", json={"model": "x"})
    assert refused.status_code == 501 and "ggq convert" in refused.json()["error"]


def test_long_conversations_are_cut_only_if_asked(client):
    long = [{"role": "user", "content": f"{i} " * 100} for i in range(4)]
    found = client.post("/api/chat", json={"model": "tiny", "messages": long, "options": SHORT})
    assert found.status_code == 400 and "tokens" in found.json()["error"]
    cut = ask(client, "/api/chat", messages=long, options=SHORT, truncate=True)
    assert "oldest" in cut.headers["x-ggq-notes"]


@pytest.mark.parametrize(
    ("given", "seconds"),
    [("5m", 300), ("1h30m", 5400), ("1.5s", 1.5), (90, 90), ("90", 90), ("0", 0), (0, 0),
     (-1, -1), ("-1", -1), ("-5m", -1), ("250ms", 0.25), ("1000000h", -1)],
)  # fmt: skip
def test_durations(given, seconds):
    assert parse_duration(given) == pytest.approx(seconds)


@pytest.mark.parametrize("given", ["", "m", "5 minutes", "5m!", True, "--5", "nan", "inf"])
def test_no_durations(given):
    with pytest.raises(UsageError, match="no duration"):
        parse_duration(given)


def test_what_open_webui_asks(client):
    """It looks for the names of the list with a tag, and puts one where there is none."""
    assert client.get("/api/version").json()["version"]
    names = {m["model"] for m in client.get("/api/tags").json()["models"]}
    loaded = client.get("/api/ps").json()["models"]
    assert names == {"tiny:latest"} == {m["name"] for m in loaded}
    assert client.post("/api/show", json={"model": "tiny:latest"}).json()["capabilities"]
    ask = {"role": "user", "content": "hi", "images": []}
    body = {
        "model": "tiny:latest",
        "messages": [ask],
        "options": {"num_ctx": 512, "num_predict": 3},
    }
    reply = client.post("/api/chat", json={**body, "stream": True, "keep_alive": "5m"})
    assert reply.headers["content-type"].startswith("application/x-ndjson")
    assert json.loads(reply.text.splitlines()[-1])["done"] is True
    title = client.post("/api/chat", json={**body, "stream": False}).json()  # titles, tags
    assert title["message"]["role"] == "assistant"
    vectors = client.post("/api/embed", json={"model": "tiny:latest", "input": ["a", "b"]}).json()
    assert len(vectors["embeddings"]) == 2
    gone = {"model": "tiny:latest", "keep_alive": 0, "prompt": ""}
    assert client.post("/api/generate", json=gone).status_code == 200
    for path in ("/v1/models", "/models"):
        assert client.get(path).json()["data"][0]["id"] == "tiny"
