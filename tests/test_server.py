"""The HTTP interface: OpenAI's shapes, streams, tools, formats, the small endpoints."""

import json

import pytest

pytest.importorskip("starlette", reason="the extra serve is not installed")
pytest.importorskip("httpx", reason="starlette's test client needs it")

import numpy as np
from servers import CHAT, HI, WEATHER, events, saying


def chat(client, **body):
    return client.post(CHAT, json={"messages": HI, "max_tokens": 8, "temperature": 0, **body})


# -- chat completions


def test_chat(client, model):
    body = chat(client).json()
    (choice,) = body["choices"]
    alone = "".join(model.generate(model.chat_ids(HI), max_tokens=8, temperature=0.0))
    assert choice["message"]["content"] == alone
    assert choice["message"]["role"] == "assistant"
    assert choice["message"]["refusal"] is None
    assert choice["finish_reason"] in ("stop", "length")
    assert body["object"] == "chat.completion"
    assert body["model"] == "tiny"
    usage = body["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert usage["prompt_tokens"] == len(model.chat_ids(HI))
    again = chat(client, model="whatever").json()
    assert again["usage"]["prompt_tokens_details"]["cached_tokens"] == usage["prompt_tokens"] - 1
    assert again["model"] == "whatever"


def test_stream(client):
    whole = chat(client).json()["choices"][0]
    chunks = events(chat(client, stream=True, stream_options={"include_usage": True}))
    assert {c["object"] for c in chunks} == {"chat.completion.chunk"}
    assert len({(c["id"], c["created"], c["model"]) for c in chunks}) == 1
    *body, last = chunks
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == 8
    assert all(c["usage"] is None for c in body)
    deltas = [c["choices"][0]["delta"] for c in body]
    assert ["role" in d for d in deltas] == [True] + [False] * (len(deltas) - 1)
    assert "".join(d.get("content", "") for d in deltas) == whole["message"]["content"]
    reasons = [c["choices"][0]["finish_reason"] for c in body]
    assert reasons == [None] * (len(body) - 1) + [whole["finish_reason"]]
    plain = events(chat(client, stream=True))
    assert all(c["choices"] and "usage" not in c for c in plain)


def test_choices_and_seed(client):
    options = {"n": 3, "seed": 7, "temperature": 1.5}
    texts = [c["message"]["content"] for c in chat(client, **options).json()["choices"]]
    assert len(set(texts)) == 3
    chunks = events(chat(client, **options, stream=True))
    streamed = ["", "", ""]
    for chunk in chunks:
        choice = chunk["choices"][0]
        streamed[choice["index"]] += choice["delta"].get("content", "")
    assert streamed == texts


def test_logprobs(client, model):
    found = chat(client, logprobs=True, top_logprobs=2).json()["choices"][0]["logprobs"]["content"]
    assert len(found) == 8
    logits = model.logits(model.chat_ids(HI))[-1].astype(np.float64)
    expected = logits.max() - np.log(np.exp(logits).sum())
    assert found[0]["logprob"] == pytest.approx(expected, abs=1e-3)
    assert found[0]["top_logprobs"][0]["token"] == found[0]["token"]
    assert all(len(f["top_logprobs"]) == 2 for f in found)
    chunks = events(chat(client, logprobs=True, stream=True))
    streamed = [
        e for c in chunks for e in (c["choices"][0]["logprobs"] or {"content": []})["content"]
    ]
    assert [e["bytes"] for e in streamed] == [e["bytes"] for e in found]


def test_logit_bias_and_stop(client, model):
    letter = model.tokenizer.ids["x"]
    body = chat(client, logit_bias={str(letter): 100}).json()
    assert body["choices"][0]["message"]["content"] == "x" * 8
    body = chat(client, logit_bias={str(letter): 100}, stop=["xxx"]).json()
    assert body["choices"][0]["message"]["content"] == ""
    assert body["choices"][0]["finish_reason"] == "stop"


SCHEMA = {
    "type": "object",
    "properties": {"color": {"enum": ["red", "green"]}, "ok": {"type": "boolean"}},
    "required": ["color", "ok"],
    "additionalProperties": False,
}


def test_response_format(client):
    pytest.importorskip("llguidance")
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}
    for temperature in (0, 2):
        body = chat(client, response_format=form, max_tokens=60, temperature=temperature).json()
        value = json.loads(body["choices"][0]["message"]["content"])
        assert value["color"] in ("red", "green")
        assert isinstance(value["ok"], bool)
        assert body["choices"][0]["finish_reason"] == "stop"
    body = chat(client, response_format={"type": "json_object"}, max_tokens=4).json()
    assert body["choices"][0]["message"]["content"].startswith("{")
    for grammar in ('root ::= "yes" | "no"', 'start: "yes" | "no"'):
        body = chat(client, grammar=grammar).json()
        assert body["choices"][0]["message"]["content"] in ("yes", "no")


def test_forced_tool_call(client):
    pytest.importorskip("llguidance")
    named = {"type": "function", "function": {"name": "get_weather"}}
    for choice in ("required", named):
        body = chat(client, tools=[WEATHER], tool_choice=choice, max_tokens=200).json()
        (call,) = body["choices"][0]["message"]["tool_calls"]
        assert call["function"]["name"] == "get_weather"
        assert json.loads(call["function"]["arguments"])["city"] in ("Bern", "Rome")
        assert body["choices"][0]["finish_reason"] == "tool_calls"


CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Bern"}}\n</tool_call>'


def test_tool_calls_are_parsed(model):
    with saying(model, f"Let me see.\n{CALL}\n{CALL}") as client:
        body = chat(client, tools=[WEATHER], max_tokens=500).json()
        message = body["choices"][0]["message"]
        assert message["content"] == "Let me see."
        assert len({c["id"] for c in message["tool_calls"]}) == 2
        assert body["choices"][0]["finish_reason"] == "tool_calls"

        chunks = events(chat(client, tools=[WEATHER], max_tokens=500, stream=True))
        deltas = [c["choices"][0]["delta"] for c in chunks]
        assert "".join(d.get("content", "") for d in deltas) == "Let me see."
        calls = [c for d in deltas for c in d.get("tool_calls", ())]
        begun = [c for c in calls if "id" in c]
        assert [c["index"] for c in begun] == [0, 1] and len(calls) > 4  # arguments as they come
        assert all(c["type"] == "function" and c["function"]["name"] for c in begun)
        for i in range(2):
            parts = [c["function"]["arguments"] for c in calls if c["index"] == i]
            assert json.loads("".join(parts)) == {"city": "Bern"}
        assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"

        one = chat(client, tools=[WEATHER], max_tokens=500, parallel_tool_calls=False).json()
        assert len(one["choices"][0]["message"]["tool_calls"]) == 1
        none = chat(client, tools=[WEATHER], max_tokens=500, tool_choice="none").json()
        assert "tool_calls" not in none["choices"][0]["message"]


def test_tools_round_trip_in_the_prompt(client):
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "one"}]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "a", "content": "two"},
    ]
    body = {"messages": messages, "tools": [WEATHER]}
    prompt = client.post("/apply-template", json=body).json()["prompt"]
    assert prompt.startswith("<|im_start|>system\nBe brief.")
    assert '"get_weather"' in prompt
    assert '<tool_call>\n{"name": "f", "arguments": {"x": 1}}\n</tool_call>' in prompt
    assert "<tool_response>\ntwo\n</tool_response>" in prompt


def test_reasoning(model):
    with saying(model, "<think>\nHard.\n</think>\n\nEasy.") as client:
        message = chat(client, max_tokens=100).json()["choices"][0]["message"]
        assert (message["reasoning_content"], message["content"]) == ("Hard.", "Easy.")
        deltas = [
            c["choices"][0]["delta"] for c in events(chat(client, stream=True, max_tokens=100))
        ]
        assert "".join(d.get("reasoning_content", "") for d in deltas) == "Hard."
        assert "".join(d.get("content", "") for d in deltas) == "Easy."


# -- the other endpoints


def test_completions(client, model):
    body = {"prompt": "the end", "max_tokens": 5, "temperature": 0}
    alone = "".join(model.generate("the end", max_tokens=5, temperature=0.0))
    found = client.post("/v1/completions", json=body).json()
    assert found["object"] == "text_completion"
    assert found["choices"][0]["text"] == alone
    ids = model.tokenize("the end")
    several = client.post(
        "/v1/completions", json={**body, "prompt": [ids, ids], "n": 2, "echo": True}
    )
    assert [c["text"] for c in several.json()["choices"]] == ["the end" + alone] * 4
    chunks = events(client.post("/v1/completions", json={**body, "stream": True}))
    assert "".join(c["choices"][0]["text"] for c in chunks) == alone
    probs = client.post("/v1/completions", json={**body, "logprobs": 2}).json()
    probs = probs["choices"][0]["logprobs"]
    assert {len(v) for v in probs.values()} == {5}
    assert all(len(top) <= 2 for top in probs["top_logprobs"])


def test_models_health_and_props(client):
    (entry,) = client.get("/v1/models").json()["data"]
    assert entry["id"] == "tiny"
    assert client.get("/v1/models/tiny").json()["id"] == "tiny"
    assert client.get("/v1/models/other").status_code == 404
    assert client.get("/health").json() == {"status": "ok"}
    assert client.get("/props").json()["n_ctx"] == entry["meta"]["n_ctx"] == 1024


def test_tokens(client, model):
    text = "the rain €"
    ids = client.post("/tokenize", json={"content": text}).json()["tokens"]
    assert ids == model.tokenize(text, add_special=False)
    assert client.post("/detokenize", json={"tokens": ids}).json() == {"content": text}
    pieces = client.post("/tokenize", json={"content": "the €", "with_pieces": True}).json()
    assert pieces["tokens"][0] == {"id": ids[0], "piece": "the"}
    assert isinstance(pieces["tokens"][-1]["piece"], list)  # a part of a character, as bytes


def test_metrics(client):
    chat(client)
    text = client.get("/metrics").text
    assert "ggq_generated_tokens_total" in text
    assert 'ggq_http_requests_total{path="/v1/chat/completions",status="200"}' in text
