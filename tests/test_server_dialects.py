"""What clients of each interface send beyond the common: obeyed, refused, or named in a header."""

import json

import numpy as np
import pytest

pytest.importorskip("starlette", reason="the extra serve is not installed")
pytest.importorskip("httpx", reason="starlette's test client needs it")

from servers import CHAT, HI, WEATHER, events, saying, serving

RESPONSES, MESSAGES, COMPLETIONS = "/v1/responses", "/v1/messages", "/v1/completions"
NOTES = "x-ggq-notes"
CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Bern"}}\n</tool_call>'
FLAT = {"type": "function", **WEATHER["function"]}


def chat(client, **more):
    return client.post(CHAT, json={"messages": HI, "max_tokens": 4, "temperature": 0, **more})


# -- notes


def test_fields_without_effect_are_named(client):
    found = chat(client, store=True, metadata={"a": "b"}, temperature=0)
    assert found.status_code == 200
    assert found.headers[NOTES] == "without effect: metadata, store"
    assert NOTES not in chat(client).headers
    stream = chat(client, stream=True, verbosity="low")
    assert stream.headers[NOTES] == "without effect: verbosity"
    strange = chat(client, **{"é\r\nx": 1})
    assert strange.headers[NOTES] == "without effect: ???x"
    assert len(chat(client, **{"x" * 5000: 1}).headers[NOTES]) <= 1000


@pytest.mark.parametrize(
    ("path", "tools"),
    [
        (CHAT, [WEATHER, {"type": "custom", "custom": {"name": "x"}}]),
        (RESPONSES, [FLAT, {"type": "web_search"}]),
        (RESPONSES, [FLAT, {"type": "namespace", "name": "x", "tools": []}]),
        (RESPONSES, [FLAT, {"type": "custom", "name": "apply_patch", "format": {"type": "text"}}]),
        (MESSAGES, [{"name": "f", "input_schema": {}}, {"type": "bash_20250124", "name": "bash"}]),
    ],
)
def test_tools_that_are_no_functions(client, path, tools):
    given = {"messages": HI, "max_tokens": 4, "input": "hi", "max_output_tokens": 4}
    found = client.post(path, json={**given, "tools": tools})
    assert found.status_code == 200, found.text
    assert f"tools[1] skipped: {tools[1]['type']} is no function" in found.headers[NOTES]


def test_responses_say_what_they_leave_out(client):
    items = [
        {"role": "user", "content": "find it"},
        {"type": "web_search_call", "id": "ws_1", "status": "completed"},
        {"role": "user", "content": "and?"},
    ]
    body = {"input": items, "max_output_tokens": 2, "reasoning": {"summary": "auto"}}
    found = client.post(RESPONSES, json={**body, "text": {"verbosity": "low"}})
    assert found.status_code == 200
    for part in ("web_search_call", "reasoning.summary", "text.verbosity"):
        assert part in found.headers[NOTES]
    for name, value in {
        "previous_response_id": "x",
        "conversation": "c",
        "background": True,
    }.items():
        refused = client.post(RESPONSES, json={"input": "hi", name: value})
        assert refused.status_code == 400 and refused.json()["error"]["param"] == name


def test_custom_tool_calls_in_the_input(client):
    patch = "*** Begin Patch"
    items = [
        {"role": "user", "content": "patch it"},
        {"type": "custom_tool_call", "call_id": "c1", "name": "apply_patch", "input": patch},
        {"type": "custom_tool_call_output", "call_id": "c1", "output": "done"},
        {"type": "local_shell_call", "call_id": "c2", "action": {"command": ["ls"]}},
        {"type": "local_shell_call_output", "call_id": "c2", "output": "a.txt"},
    ]
    found = client.post(RESPONSES, json={"input": items, "max_output_tokens": 2})
    assert found.status_code == 200, found.text


def test_what_would_be_another_answer_is_refused(client):
    assert chat(client, modalities=["text"]).status_code == 200
    refused = chat(client, modalities=["text", "audio"])
    assert refused.status_code == 400 and "modalities" in refused.json()["error"]["message"]


# -- tools


def test_choices_of_tools(model):
    other = {"type": "function", "function": {"name": "other"}}
    allowed = {"mode": "auto", "tools": [{"type": "function", "function": {"name": "other"}}]}
    with saying(model, CALL) as client:
        for choice, n_calls in [
            ({"type": "auto"}, 1),
            ({"type": "none"}, 0),
            ({"type": "allowed_tools", "allowed_tools": allowed}, 0),
            ({"type": "allowed_tools", "mode": "auto", "tools": [FLAT]}, 1),
        ]:
            body = chat(client, tools=[WEATHER, other], tool_choice=choice, max_tokens=200).json()
            message = body["choices"][0]["message"]
            assert len(message.get("tool_calls", ())) == n_calls, choice
        for choice in ("sometimes", {"type": "function"}, {"type": "allowed_tools"}):
            refused = chat(client, tools=[WEATHER], tool_choice=choice)
            assert refused.json()["error"]["param"] == "tool_choice"


def test_functions_as_they_were_first(model):
    with saying(model, CALL) as client:
        given = {"functions": [WEATHER["function"]], "max_tokens": 200}
        choice = chat(client, **given).json()["choices"][0]
        assert choice["finish_reason"] == "function_call"
        call = choice["message"]["function_call"]
        assert (call["name"], json.loads(call["arguments"])) == ("get_weather", {"city": "Bern"})
        assert "tool_calls" not in choice["message"]

        chunks = events(chat(client, **given, stream=True))
        parts = [c["choices"][0]["delta"].get("function_call", {}) for c in chunks]
        assert json.loads("".join(p.get("arguments", "") for p in parts)) == {"city": "Bern"}
        assert [p["name"] for p in parts if "name" in p] == ["get_weather"]

        none = chat(client, **given, function_call="none").json()["choices"][0]
        assert "function_call" not in none["message"]
        history = [
            *HI,
            {"role": "assistant", "content": None, "function_call": call},
            {"role": "function", "name": "get_weather", "content": "sunny"},
        ]
        text = client.post("/apply-template", json={"messages": history}).json()["prompt"]
        assert "Bern" in text and "<tool_response>\nsunny" in text


def test_a_history_whose_arguments_are_no_json(client):
    function = {"name": "f", "arguments": '{"city": "cut o'}
    history = [*HI, {"role": "assistant", "tool_calls": [{"function": function}]}, *HI]
    prompt = client.post("/apply-template", json={"messages": history}).json()["prompt"]
    assert "cut o" in prompt


# -- continuing


@pytest.mark.parametrize("path", [CHAT, MESSAGES])
def test_an_answer_begun_by_the_client_goes_on(model, path):
    messages = [*HI, {"role": "assistant", "content": '{"name": '}]
    with saying(model, ' "Bern"') as client:
        found = client.post(path, json={"messages": messages, "max_tokens": 50}).json()
    text = (
        found["choices"][0]["message"]["content"] if path == CHAT else found["content"][0]["text"]
    )
    assert text == ' "Bern"'


def test_when_an_answer_is_not_continued(client):
    def prompt(**more):
        messages = [*HI, {"role": "assistant", "content": "one"}]
        return client.post("/apply-template", json={"messages": messages, **more}).json()["prompt"]

    assert prompt().endswith("assistant\none")
    closed = prompt(add_generation_prompt=False)
    assert closed.rstrip().endswith("one<|im_end|>")
    assert prompt(continue_final_message=False) == closed + "<|im_start|>assistant\n"


# -- completions


def complete(client, **more):
    body = {"temperature": 0, **more}
    return client.post(COMPLETIONS, json=body)


@pytest.mark.parametrize("n_prompt", [2, 65, 140])
@pytest.mark.parametrize("max_tokens", [0, 1])
def test_a_prompts_own_probabilities(model, client, n_prompt, max_tokens):
    ids = [int(i) for i in np.random.default_rng(n_prompt).integers(5, 200, n_prompt)]
    body = {"prompt": ids, "echo": True, "logprobs": 2, "max_tokens": max_tokens}
    choice = complete(client, **body).json()["choices"][0]
    found = choice["logprobs"]
    logits = model.logits(ids).astype(np.float64)
    logprobs = logits - np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1))[:, None]
    logprobs -= logits.max(-1, keepdims=True)
    want = [logprobs[i, token] for i, token in enumerate(ids[1:])]
    assert found["token_logprobs"][0] is None and found["top_logprobs"][0] is None
    assert np.allclose(found["token_logprobs"][1:n_prompt], want, atol=1e-4)
    assert {len(v) for v in found.values()} == {n_prompt + max_tokens}
    for i, top in enumerate(found["top_logprobs"][1:n_prompt]):
        assert max(top.values()) == pytest.approx(logprobs[i].max(), abs=1e-4)
    assert choice["finish_reason"] == "length"
    chunks = events(complete(client, **body, stream=True))
    parts = [c["choices"][0]["logprobs"] for c in chunks if c["choices"]]
    streamed = [p for part in parts if part for p in part["token_logprobs"]]
    assert streamed == pytest.approx(found["token_logprobs"], abs=1e-4)


def test_an_echoed_prompt_is_evaluated_once(client):
    body = {"prompt": list(range(50, 90)), "echo": True, "logprobs": 0, "max_tokens": 2}
    usage = complete(client, **body).json()["usage"]
    assert usage["prompt_tokens_details"]["cached_tokens"] == 39  # the answer needs the last


def test_no_tokens_at_all(client):
    body = complete(client, prompt="hello", max_tokens=0).json()
    assert body["choices"][0]["text"] == "" and body["usage"]["completion_tokens"] == 0
    assert chat(client, max_tokens=0).status_code == 400


# -- sampling


def test_common_ways_to_say_it(client):
    assert chat(client, top_k=-1).status_code == 200
    assert chat(client, top_k=-2).status_code == 400
    stops = [f"never {i}" for i in range(40)]
    assert chat(client, stop=stops).status_code == 200
    body = {"messages": HI, "max_tokens": 3, "stop_sequences": stops}
    assert client.post(MESSAGES, json=body).status_code == 200


def test_a_prompt_is_evaluated_anew_where_that_is_asked_for(client):
    body = {"prompt": list(range(10, 60)), "max_tokens": 1}
    cached = []
    for reuse in (True, True, False, None):
        usage = complete(client, **body, cache_prompt=reuse).json()["usage"]
        cached.append(usage["prompt_tokens_details"]["cached_tokens"])
    assert cached == [0, 49, 0, 49]


# -- Anthropic's


def test_the_stop_sequence_is_told(model):
    with saying(model, "one END two STOP three") as client:
        body = {"messages": HI, "max_tokens": 100, "stop_sequences": ["STOP", "END", "x"]}
        found = client.post(MESSAGES, json=body).json()
        assert (found["stop_reason"], found["stop_sequence"]) == ("stop_sequence", "END")
        assert found["content"][0]["text"].strip() == "one"
        free = client.post(MESSAGES, json={**body, "stop_sequences": ["never"]}).json()
        assert (free["stop_reason"], free["stop_sequence"]) == ("end_turn", None)


def test_output_config(client):
    pytest.importorskip("llguidance")
    schema = {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]}
    form = {"type": "json_schema", "schema": schema}
    body = {"messages": HI, "max_tokens": 60, "temperature": 3}
    for given in ({"output_config": {"format": form, "effort": "low"}}, {"output_format": form}):
        found = client.post(MESSAGES, json={**body, **given})
        value = json.loads(found.json()["content"][0]["text"])
        assert isinstance(value["a"], bool) and list(value) == ["a"]
        assert ("output_config.effort" in found.headers.get(NOTES, "")) == (
            "output_config" in given
        )
    wrong = client.post(MESSAGES, json={**body, "output_config": {"format": {"type": "xml"}}})
    assert wrong.status_code == 400 and "output_config.format.type" in wrong.text


# -- browsers


def test_preflights_of_browser_sdks(model):
    asked = (
        "authorization,content-type,x-stainless-os,x-stainless-retry-count",
        "anthropic-dangerous-direct-browser-access,anthropic-version,content-type,x-api-key",
        "authorization, openai-organization, openai-project",
    )
    origin = {"origin": "https://app.example"}
    with serving(model, origins=("https://app.example",)) as client:
        for names in asked:
            ask = {
                "access-control-request-method": "POST",
                "access-control-request-headers": names,
                "access-control-request-private-network": "true",
            }
            found = client.options(CHAT, headers={**origin, **ask})
            assert found.status_code == 204
            assert found.headers["access-control-allow-headers"] == names
            assert found.headers["access-control-allow-private-network"] == "true"
        odd = {**origin, "access-control-request-headers": 'x"y, <z>'}
        assert (
            "x" not in client.options(CHAT, headers=odd).headers["access-control-allow-headers"][:3]
        )
        answer = client.post(CHAT, json={"messages": HI, "max_tokens": 1}, headers=origin)
        assert NOTES in answer.headers["access-control-expose-headers"]
        evil = client.options(CHAT, headers={"origin": "https://evil.example", **ask})
        assert evil.status_code == 403
