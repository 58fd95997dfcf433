"""Real clients against a real server: openai, langchain-openai, llm; connections that break off.

A tiny random model, and SmolLM2 where it has been fetched (`make demo`); GGQ_TEST_MODEL names
another file to use in its place.
"""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("uvicorn", reason="the extra serve is not installed")
pytest.importorskip("httpx", reason="starlette's test client needs it")

from ggufmaker import make_tiny_llama
from schedules import Scripted
from servers import HI, WEATHER, listening

import ggq
from ggq.hub import DEFAULT_MODEL, KNOWN
from ggq.runtime.batching.scheduler import Scheduler

pytestmark = pytest.mark.slow

SCHEMA = {
    "type": "object",
    "properties": {"ok": {"type": "boolean"}},
    "required": ["ok"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    path = make_tiny_llama(tmp_path_factory.mktemp("tiny") / "t.gguf", n_ctx=1024, vocab="bpe")
    with ggq.load(path, n_ctx=4096, threads=1) as model:
        yield model


@pytest.fixture(scope="module", params=["tiny", DEFAULT_MODEL])
def model(request):
    if request.param == "tiny":
        yield request.getfixturevalue("tiny")
        return
    path = Path(os.environ.get("GGQ_TEST_MODEL") or KNOWN[DEFAULT_MODEL].path)
    if not path.is_file():
        pytest.skip(f"{request.param} is not here: ggq pull {request.param}")
    with ggq.load(path, n_ctx=4096, threads=1) as model:
        yield model


@pytest.fixture(scope="module")
def server(model):
    with listening(model) as (url, scheduler):
        yield url, scheduler


def settle(condition, seconds=20.0):
    """Wait until ``condition()`` holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it does not come about"
        time.sleep(0.01)


# -- the openai package


@pytest.fixture
def openai_client(server):
    openai = pytest.importorskip("openai")
    with openai.OpenAI(base_url=f"{server[0]}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_openai_chat_and_stream(openai_client):
    pytest.importorskip("llguidance")
    options = {"model": "tiny", "messages": HI, "max_tokens": 9, "temperature": 0}
    whole = openai_client.chat.completions.create(**options)
    assert whole.usage.completion_tokens == 9
    assert whole.choices[0].message.refusal is None
    stream = openai_client.chat.completions.create(
        **options, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].usage.completion_tokens == 9
    yes = {"grammar": 'root ::= "yes"'}  # their helper refuses answers that are cut
    with openai_client.chat.completions.stream(**options, extra_body=yes) as helper:
        events = list(helper)
        assert helper.get_final_completion().choices[0].message.content == "yes"
    assert any(e.type == "content.delta" for e in events)
    assert [m.id for m in openai_client.models.list()] == ["tiny"]


def test_openai_tools_round_trip(openai_client):
    pytest.importorskip("llguidance")
    strict = {**WEATHER, "function": {**WEATHER["function"], "strict": True}}
    options = {"model": "tiny", "tools": [strict], "max_tokens": 200, "temperature": 0}
    first = openai_client.chat.completions.create(
        messages=HI, tool_choice="required", **options
    ).choices[0]
    (call,) = first.message.tool_calls
    assert first.finish_reason == "tool_calls"
    assert json.loads(call.function.arguments)["city"] in ("Bern", "Rome")
    result = {"role": "tool", "tool_call_id": call.id, "content": "sunny"}
    second = openai_client.chat.completions.create(messages=[*HI, first.message, result], **options)
    assert second.choices[0].finish_reason in ("stop", "length")
    with openai_client.chat.completions.stream(
        messages=HI, tool_choice="required", **options
    ) as stream:
        done = [e for e in stream if e.type == "tool_calls.function.arguments.done"]
    assert [d.name for d in done] == ["get_weather"]


def test_openai_json_schema_logprobs_and_errors(openai_client):
    pytest.importorskip("llguidance")
    import openai

    options = {"model": "tiny", "messages": HI, "max_tokens": 40}
    form = {"type": "json_schema", "json_schema": {"name": "s", "schema": SCHEMA, "strict": True}}
    found = openai_client.chat.completions.create(**options, response_format=form)
    assert isinstance(json.loads(found.choices[0].message.content)["ok"], bool)
    found = openai_client.chat.completions.create(**options, logprobs=True, top_logprobs=3)
    assert len(found.choices[0].logprobs.content[0].top_logprobs) == 3
    with pytest.raises(openai.BadRequestError) as caught:
        openai_client.chat.completions.create(**options, temperature=-1)
    assert caught.value.param == "temperature"
    with pytest.raises(openai.NotFoundError):
        openai_client.models.retrieve("missing")


def test_openai_embeddings(openai_client, model):
    found = openai_client.embeddings.create(model="tiny", input=["the rain", "inn"])  # base64
    assert len(found.data[0].embedding) == model.hparams.n_embd
    assert sum(x * x for x in found.data[0].embedding) == pytest.approx(1, abs=1e-3)
    assert found.data[0].embedding == pytest.approx(model.embed(["the rain"])[0], abs=1e-4)


# -- langchain and llm


def test_langchain(server, model):
    langchain = pytest.importorskip("langchain_openai")
    url, _ = server
    options = {"base_url": f"{url}/v1", "api_key": "none"}
    chat = langchain.ChatOpenAI(**options, model="tiny", temperature=0, max_tokens=9)
    whole = chat.invoke("hi").content
    assert "".join(chunk.content for chunk in chat.stream("hi")) == whole
    pytest.importorskip("llguidance")
    tools = chat.bind_tools([WEATHER], tool_choice="required").bind(max_tokens=200)
    (call,) = tools.invoke("hi").tool_calls
    assert call["name"] == "get_weather"
    whole = None
    for chunk in tools.stream("hi"):  # fragments of the call, put together again
        whole = chunk if whole is None else whole + chunk
    assert [c["name"] for c in whole.tool_calls] == ["get_weather"]
    assert whole.tool_calls[0]["args"]["city"] in ("Bern", "Rome")
    # sends token ids of tiktoken unless told not to
    embeddings = langchain.OpenAIEmbeddings(**options, check_embedding_ctx_length=False)
    assert len(embeddings.embed_query("the rain")) == model.hparams.n_embd


GREEDILY = ("-o", "temperature", "0")  # drawn, nine tokens of this model may all be blanks


def test_llm_command(server, tmp_path):
    pytest.importorskip("llm")
    url, _ = server
    models = f"- model_id: ours\n  model_name: tiny\n  api_base: {url}/v1\n  api_key_name: none\n"
    (tmp_path / "extra-openai-models.yaml").write_text(models)
    (tmp_path / "keys.json").write_text('{"none": "x"}')
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "llm",
            "-m",
            "ours",
            "-o",
            "max_tokens",
            "9",
            *GREEDILY,
            "hi",
            "--no-log",
        ],
        capture_output=True,
        text=True,
        encoding="utf-8",
        env={**os.environ, "LLM_USER_PATH": str(tmp_path), "PYTHONIOENCODING": "utf-8"},
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


# -- connections


def raw_request(url, body):
    """Open a connection by hand and send a chat request; return the socket."""
    host, port = url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), timeout=20)
    text = json.dumps({"messages": HI, "ignore_eos": True, **body}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(text)}\r\n"
    connection.sendall(head.encode() + b"\r\n" + text)
    return connection


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_work_of_a_client_that_goes_away_stops(tiny, stream):
    class Slow(Scripted):
        def step(self, parts):
            time.sleep(0.02)
            return super().step(parts)

    tokenizer = tiny.tokenizer
    scheduler = Scheduler(Slow([5] * 4000, tokenizer.n_vocab, n_ctx=8192), tokenizer, n_slots=2)
    with listening(tiny, scheduler) as (url, scheduler):
        connections = [raw_request(url, {"stream": stream}) for _ in range(3)]
        settle(lambda: scheduler.n_running == 2 and scheduler.stats.generated_tokens > 5)
        for connection in connections:
            connection.close()
        settle(lambda: scheduler.n_running == scheduler.n_waiting == 0)
        assert scheduler.stats.cancelled == 3
        assert scheduler.stats.generated_tokens < 500


def test_a_body_that_never_comes_is_given_up(tiny):
    with listening(tiny, body_seconds=0.2) as (url, _):
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=20) as connection:
            head = f"POST /v1/completions HTTP/1.1\r\nHost: {host}\r\nContent-Length: 9\r\n\r\n{{"
            connection.sendall(head.encode())
            assert b" 408 " in connection.recv(4096)


def test_pings_while_a_prompt_is_evaluated(tiny):
    class Slow(Scripted):
        def step(self, parts):
            time.sleep(0.3)
            return super().step(parts)

    tokenizer = tiny.tokenizer
    scheduler = Scheduler(Slow([5] * 50, tokenizer.n_vocab), tokenizer, n_slots=1)
    with listening(tiny, scheduler, ping_seconds=0.05) as (url, _):
        connection = raw_request(url, {"stream": True, "max_tokens": 2})
        text = b""
        while b"[DONE]" not in text:
            text += connection.recv(4096)
        connection.close()
    assert b"\n: ping\n" in text


def test_many_clients_at_once(server):
    """More clients than slots, some of them leaving: everyone is served, nothing is left."""
    url, scheduler = server
    connections = [raw_request(url, {"stream": True, "max_tokens": 30}) for _ in range(24)]
    for connection in connections[::3]:
        connection.close()
    for i, connection in enumerate(connections):
        if i % 3:
            text = b""
            while b"[DONE]" not in text:
                part = connection.recv(65536)
                assert part
                text += part
            assert b'"finish_reason":"length"' in text
            connection.close()
    settle(lambda: scheduler.n_running == scheduler.n_waiting == 0)
