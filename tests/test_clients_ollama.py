"""The ``ollama`` package against a real server: chats, streams, tools, formats, vectors, lists."""

import json

import pytest

pytest.importorskip("ollama")
pytest.importorskip("uvicorn", reason="the extra serve is not installed")

import ollama
from schedules import Scripted
from servers import HI, WEATHER, listening

from ggq.runtime.batching.scheduler import Scheduler

pytestmark = pytest.mark.slow
SHORT = {"num_predict": 5, "temperature": 0}


@pytest.fixture(scope="module")
def client(model):
    with listening(model) as (url, _), ollama.Client(url) as client:
        yield client


def test_chat_and_stream(client):
    whole = client.chat("tiny", HI, options=SHORT, keep_alive="5m")
    assert whole.done and whole.eval_count == 5 and whole.message.role == "assistant"
    parts = list(client.chat("tiny", HI, options=SHORT, stream=True))
    assert "".join(p.message.content for p in parts) == whole.message.content
    assert [p.done for p in parts] == [False] * (len(parts) - 1) + [True]


def test_generate(client):
    whole = client.generate("tiny", "hello", options=SHORT)
    parts = list(client.generate("tiny", "hello", options=SHORT, stream=True))
    assert "".join(p.response for p in parts) == whole.response
    assert client.generate("tiny").done_reason == "load"


def test_format_and_tools(client, model):
    schema = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
    schema["additionalProperties"] = False
    answer = client.chat("tiny", HI, format=schema)
    assert set(json.loads(answer.message.content)) == {"ok"}
    tokenizer = model.tokenizer
    text = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Bern"}}\n</tool_call>'
    script = [*tokenizer.encode(text, add_special=False, parse_special=True), tokenizer.eos_id]
    engine = Scripted(script, tokenizer.n_vocab, n_ctx=4096)
    with (
        listening(model, Scheduler(engine, tokenizer)) as (url, _),
        ollama.Client(url) as other,
    ):
        (call,) = other.chat("tiny", HI, tools=[WEATHER]).message.tool_calls
        assert call.function.name == "get_weather" and call.function.arguments == {"city": "Bern"}
        turn = {"role": "assistant", "tool_calls": [call.model_dump()]}
        result = {"role": "tool", "tool_name": "get_weather", "content": "rain"}
        assert other.chat("tiny", [*HI, turn, result], tools=[WEATHER]).done


def test_vectors_and_lists(client):
    assert len(client.embed("tiny", ["a", "b"]).embeddings) == 2
    assert client.embeddings("tiny", "a").embedding
    assert client.list().models[0].model == "tiny:latest"
    assert client.show("tiny").capabilities == ["completion"]
    assert client.ps().models[0].context_length


def test_errors_are_told(client):
    with pytest.raises(ollama.ResponseError, match=r"options\.top_k") as found:
        client.chat("tiny", HI, options={"top_k": "x"})
    assert found.value.status_code == 400
    with pytest.raises(ollama.ResponseError, match="one model"):
        client.pull("smollm2-135m")
