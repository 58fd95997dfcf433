"""OpenAI's responses and Anthropic's messages: shapes, events in order, tools, refusals."""

import json

import pytest

pytest.importorskip("starlette", reason="the extra serve is not installed")
pytest.importorskip("httpx", reason="starlette's test client needs it")

from servers import WEATHER, listening, saying, serving

RESPONSES, MESSAGES = "/v1/responses", "/v1/messages"
CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Bern"}}\n</tool_call>'
FLAT = {"type": "function", **WEATHER["function"]}
CLAUDE = {"name": "get_weather", "input_schema": WEATHER["function"]["parameters"]}


def named_events(response):
    """Return a stream's events; each one's name is its type."""
    out = []
    for block in response.text.strip().split("\n\n"):
        name, _, data = block.partition("\n")
        out.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {out[-1]['type']}"
    return out


def ask(client, text="hi", path=RESPONSES, **body):
    given = {"input": text, "max_output_tokens": 300, "temperature": 0}
    if path == MESSAGES:
        given = {"messages": [{"role": "user", "content": text}], "max_tokens": 300}
    return client.post(path, json={**given, **body})


def test_responses(model):
    with saying(model, "<think>Hm.</think>Hello!") as client:
        body = ask(client, instructions="Be kind.").json()
        assert (body["object"], body["status"]) == ("response", "completed")
        thoughts, message = body["output"]
        assert thoughts["content"][0]["text"] == "Hm."
        assert message["content"][0]["text"] == "Hello!"
        usage = body["usage"]
        assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
        cut = ask(client, max_output_tokens=2).json()
        assert cut["status"] == "incomplete"
        assert cut["incomplete_details"] == {"reason": "max_output_tokens"}


def test_responses_stream(model):
    with saying(model, f"Hello!{CALL}") as client:
        events = named_events(ask(client, stream=True, tools=[FLAT]))
        assert [e["sequence_number"] for e in events] == list(range(len(events)))
        kinds = [e["type"].removeprefix("response.") for e in events]
        assert kinds[:4] == ["created", "in_progress", "output_item.added", "content_part.added"]
        assert kinds[-1] == "completed"
        deltas = [e["delta"] for e in events if e["type"] == "response.output_text.delta"]
        assert "".join(deltas) == "Hello!"
        assert kinds.index("output_text.done") < kinds.index("content_part.done")
        (done,) = (e for e in events if e["type"] == "response.function_call_arguments.done")
        assert json.loads(done["arguments"]) == {"city": "Bern"}
        whole = ask(client, tools=[FLAT]).json()
        assert [i["type"] for i in whole["output"]] == ["message", "function_call"]
        assert [i["type"] for i in events[-1]["response"]["output"]] == ["message", "function_call"]


def test_responses_round_trip(model):
    with saying(model, "Sunny.") as client:
        items = [
            {"role": "user", "content": [{"type": "input_text", "text": "Weather?"}]},
            {"type": "reasoning", "summary": []},
            {"type": "function_call", "call_id": "a", "name": "get_weather", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "a", "output": "sun"},
        ]
        body = ask(client, items, tools=[FLAT]).json()
        assert body["output"][0]["content"][0]["text"] == "Sunny."
        for wrong in (
            {"input": [{"type": "item_reference", "id": "x"}]},
            {"input": []},
            {"input": [{"role": "user"}]},
            {"previous_response_id": "resp_1"},
            {"temperature": 1000},
            {"max_output_tokens": 0},
        ):
            found = client.post(RESPONSES, json={"input": "hi", **wrong})
            assert found.status_code == 400, wrong
            assert found.json()["error"]["param"] == next(iter(wrong))


def test_responses_schema(model):
    pytest.importorskip("llguidance")
    schema = {
        "type": "object",
        "properties": {"ok": {"type": "boolean"}},
        "required": ["ok"],
        "additionalProperties": False,
    }
    with serving(model) as client:
        form = {"format": {"type": "json_schema", "name": "x", "schema": schema}}
        given = {"input": "hi", "text": form, "max_output_tokens": 50}
        body = client.post(RESPONSES, json=given).json()
        text = body["output"][0]["content"][0]["text"]
        assert isinstance(json.loads(text)["ok"], bool)


def test_openai_package_reads_responses(model):
    openai = pytest.importorskip("openai")
    pytest.importorskip("llguidance")
    form = {"format": {"type": "json_schema", "name": "x", "schema": {"const": "yes"}}}
    with listening(model) as (url, _), openai.OpenAI(base_url=f"{url}/v1", api_key="x") as client:
        options = {"model": "tiny", "input": "hi", "text": form}
        assert client.responses.create(**options).output_text == '"yes"'
        with client.responses.stream(**options) as stream:
            text = "".join(e.delta for e in stream if e.type == "response.output_text.delta")
            assert stream.get_final_response().output_text == text == '"yes"'


def test_messages(model):
    with saying(model, "<think>Hm.</think>Hello!") as client:
        body = ask(client, path=MESSAGES, system="Be kind.").json()
        assert (body["type"], body["role"], body["stop_reason"]) == (
            "message", "assistant", "end_turn")  # fmt: skip
        assert [b["type"] for b in body["content"]] == ["thinking", "text"]
        assert body["content"][1]["text"] == "Hello!"
        assert ask(client, path=MESSAGES, max_tokens=2).json()["stop_reason"] == "max_tokens"
        stopped = ask(client, path=MESSAGES, stop_sequences=["lo"]).json()
        assert (stopped["stop_reason"], stopped["stop_sequence"]) == ("stop_sequence", "lo")
        assert stopped["content"][1]["text"] == "Hel"
        usage = body["usage"]
        counted = client.post(
            f"{MESSAGES}/count_tokens",
            json={"messages": [{"role": "user", "content": "hi"}], "system": "Be kind."},
        )
        assert counted.json() == {
            "input_tokens": usage["input_tokens"] + usage["cache_read_input_tokens"]
        }


def test_messages_stream_with_tools(model):
    with saying(model, f"Hello!{CALL}") as client:
        events = named_events(ask(client, path=MESSAGES, stream=True, tools=[CLAUDE]))
        kinds = [e["type"] for e in events]
        assert kinds[:2] == ["message_start", "ping"]
        assert kinds[-2:] == ["message_delta", "message_stop"]
        assert events[-2]["delta"]["stop_reason"] == "tool_use"
        starts = [e["content_block"]["type"] for e in events if e["type"] == "content_block_start"]
        assert starts == ["text", "tool_use"]
        assert [e["index"] for e in events if e["type"] == "content_block_stop"] == [0, 1]
        parts = [e["delta"] for e in events if e["type"] == "content_block_delta"]
        assert "".join(p.get("text", "") for p in parts) == "Hello!"
        assert json.loads("".join(p.get("partial_json", "") for p in parts)) == {"city": "Bern"}
        turns = [
            {"role": "user", "content": "Weather?"},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "hm", "signature": ""},
                {"type": "tool_use", "id": "a", "name": "get_weather", "input": {"city": "Bern"}}]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "a", "content": [
                    {"type": "text", "text": "sun"}]},
                {"type": "text", "text": "And?"}]},
        ]  # fmt: skip
        assert ask(client, path=MESSAGES, messages=turns, tools=[CLAUDE]).status_code == 200


def test_messages_refusals(model):
    with serving(model) as client:
        for wrong in (
            {"max_tokens": 0},
            {"temperature": -1},
            {"messages": [{"role": "robot", "content": "x"}]},
            {"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]},
            {"tool_choice": {"type": "sometimes"}},
            {"tools": [{}]},
            {"system": [{"type": "text"}]},
        ):
            found = ask(client, path=MESSAGES, **wrong)
            assert found.status_code == 400, wrong
            body = found.json()
            assert body["type"] == "error"
            assert body["error"]["type"] == "invalid_request_error"
            assert next(iter(wrong)) in body["error"]["message"]
    with serving(model, api_keys=("k",)) as client:
        found = ask(client, path=MESSAGES)
        assert found.json()["error"]["type"] == "authentication_error"
