"""``truncation: auto``: whole turns are left out where all do not fit, and the header says so."""

import pytest

pytest.importorskip("starlette", reason="the extra serve is not installed")
pytest.importorskip("httpx", reason="starlette's test client needs it")

from ggufmaker import make_tiny_llama
from servers import CHAT, events, serving

import ggq

N_CTX = 512


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = make_tiny_llama(tmp_path_factory.mktemp("tiny") / "t.gguf", n_ctx=N_CTX, vocab="bpe")
    with ggq.load(path, n_ctx=4 * N_CTX, threads=1) as model:  # four answers at once
        yield model


@pytest.fixture(scope="module")
def client(model):
    with serving(model) as client:
        yield client


def said(n, last="the last"):
    """Return instructions, ``n`` turns of some 150 tokens, and a question."""
    messages = [{"role": "system", "content": "Be kind."}]
    for i in range(n):
        messages.append({"role": "user", "content": f"question {i} " + "x " * 20})
        messages.append({"role": "assistant", "content": f"answer {i}"})
    return [*messages, {"role": "user", "content": last}]


def ask(client, messages, **body):
    given = {"messages": messages, "max_tokens": 4, "temperature": 0, **body}
    return client.post(CHAT, json=given)


@pytest.mark.parametrize("stream", [False, True])
def test_the_oldest_turns_go_and_the_header_says_how_many(client, model, stream):
    messages = said(40)
    assert ask(client, messages, truncation="disabled").status_code == 400
    reply = ask(client, messages, truncation="auto", stream=stream)
    assert reply.status_code == 200
    note = reply.headers["x-ggq-notes"]
    n = int(note.split()[3])
    assert note == f"truncation: the oldest {n} messages are left out"
    kept = [messages[0], *messages[n + 1 :]]
    assert kept[1]["role"] == "user"
    again = ask(client, kept, stream=stream)
    assert "x-ggq-notes" not in again.headers
    one, other = (
        [c["choices"][0]["delta"] for c in events(r) if c["choices"]] if stream
        else r.json()["choices"] for r in (reply, again)
    )  # fmt: skip
    assert one == other
    # One turn more would leave no room for the answer.
    assert len(model.chat_ids(kept)) <= N_CTX - 4
    assert len(model.chat_ids([messages[0], *messages[n - 1 :]])) > N_CTX - 4


def test_room_is_left_for_the_answer(client, model):
    for max_tokens, room in ((100, 100), (None, N_CTX // 4), (10_000, N_CTX // 2)):
        more = {"max_tokens": max_tokens} if max_tokens else {"max_tokens": None}
        reply = ask(client, said(40), truncation="auto", **more)
        prompt = reply.json()["usage"]["prompt_tokens"]
        assert N_CTX - room - 160 < prompt <= N_CTX - room


def test_what_fits_is_sent_whole(client):
    reply = ask(client, said(1), truncation="auto")
    assert "x-ggq-notes" not in reply.headers
    assert reply.json() | {"id": 0, "created": 0, "timings": 0, "usage": 0} == (
        ask(client, said(1)).json() | {"id": 0, "created": 0, "timings": 0, "usage": 0}
    )


def test_a_last_turn_that_is_too_long_is_refused(client):
    reply = ask(client, said(3, "y " * 2000), truncation="auto")
    assert reply.status_code == 400
    assert reply.json()["error"]["type"] == "exceed_context_size_error"
    assert ask(client, said(1), truncation="sometimes").json()["error"]["param"] == "truncation"


def test_tool_calls_go_with_their_question(client):
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    turn = [
        {"role": "user", "content": "x " * 60},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "a", "content": "1"},
        {"role": "assistant", "content": "one"},
    ]
    reply = ask(client, [*turn * 9, {"role": "user", "content": "so?"}], truncation="auto")
    assert int(reply.headers["x-ggq-notes"].split()[3]) % 4 == 0


@pytest.mark.parametrize("stream", [False, True])
def test_responses_take_it_too(client, stream):
    items = said(40)[1:]
    body = {"input": items, "instructions": "Be kind.", "max_output_tokens": 4, "stream": stream}
    assert client.post("/v1/responses", json=body).status_code == 400
    reply = client.post("/v1/responses", json={**body, "truncation": "auto"})
    assert reply.status_code == 200
    assert "truncation: the oldest" in reply.headers["x-ggq-notes"]
    if not stream:
        assert reply.json()["truncation"] == "auto"
        short = {**body, "input": "hi"}
        assert client.post("/v1/responses", json=short).json()["truncation"] == "disabled"
