"""``ggq chat --server``: a conversation with a server that really listens."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

pytest.importorskip("uvicorn", reason="the extra serve is not installed")
pytest.importorskip("httpx", reason="starlette's test client needs it")

from ggufmaker import make_tiny_llama
from servers import listening

import ggq
from ggq import cli
from ggq.commands._hosts import RemoteHost
from ggq.errors import UsageError
from ggq.runtime.chat.remote import RemoteConversation
from ggq.runtime.generation.generation import ContextError, Options
from ggq.runtime.generation.room import drop_oldest
from ggq.runtime.sampling import SamplingParams

GREEDY = SamplingParams(temperature=0.0)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = make_tiny_llama(tmp_path_factory.mktemp("tiny") / "t.gguf", n_ctx=512, vocab="bpe")
    with ggq.load(path, n_ctx=2048, threads=1) as model:
        yield model


@pytest.fixture(scope="module")
def server(model):
    with listening(model, api_keys=("secret",)) as (url, scheduler):
        yield url, scheduler


def test_answers_are_those_of_the_model(model, server):
    url, _ = server
    conversation, options = RemoteConversation(url, "secret", "Be kind."), Options()
    pieces = list(conversation.say("hi", GREEDY, 9, (), options))
    messages = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "hi"}]
    alone = "".join(model.chat(messages, max_tokens=9, temperature=0.0))
    assert "".join(piece.text for piece in pieces) == alone
    assert conversation.messages == [*messages, {"role": "assistant", "content": alone}]
    assert options.stats.generated_tokens == 9
    again = RemoteConversation(f"{url}/v1", "secret", "Be kind.")
    bias = GREEDY.replace(logit_bias={model.tokenizer.ids["x"]: 100.0})
    assert "".join(p.text for p in again.say("hi", bias, 3)) == "xxx"
    assert "".join(p.text for p in again.regenerate(GREEDY, 9)) == alone


def test_breaking_off_stops_the_server(server):
    url, scheduler = server
    conversation = RemoteConversation(url, "secret")
    before = scheduler.stats.cancelled
    forbidden = dict.fromkeys(scheduler.tokenizer.eog_ids, -100.0)
    pieces = conversation.say("hi", SamplingParams(logit_bias=forbidden))
    text = next(pieces).text + next(pieces).text
    pieces.close()
    assert conversation.messages[-1] == {"role": "assistant", "content": text}
    assert scheduler.stats.cancelled >= before


def test_errors_are_one_line(server):
    url, _ = server
    for key, wanted in ((None, "a valid API key"), ("secret", "exceed|context of")):
        conversation = RemoteConversation(url, key)
        with pytest.raises(UsageError, match=wanted):
            conversation.say("x" * 3000)
        assert conversation.messages == []
    with pytest.raises(UsageError, match=r"127\.0\.0\.1:1: .*does ggq serve run"):
        RemoteConversation("http://127.0.0.1:1").say("hi")
    with pytest.raises(UsageError, match="begins with http"):
        RemoteConversation("file:///etc/passwd")


def test_command(server, capsys):
    given = ["-p", "hi", "--temp", "0", "-n", "5", "--server", server[0]]
    assert cli.main(["chat", *given, "--server-key", "secret"]) == 0
    assert capsys.readouterr().out.strip()
    assert cli.main(["chat", *given]) == 1
    assert "ggq: error: the server answers 401" in capsys.readouterr().err
    assert cli.main(["run", "--raw", *given]) == 2


class Scripted(BaseHTTPRequestHandler):
    """A server that thinks aloud, or refuses what is too long, as llama-server does."""

    def log_message(self, *_):
        pass

    def do_GET(self):
        self._send(200, {"n_ctx": 180} if self.path == "/props" else {"data": [{"id": "m1"}]})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.bodies.append(body)
        if len(str(body["messages"])) > 2000:
            numbers = {"n_prompt_tokens": 900, "n_ctx": 180, "message": "too long"}
            self._send(400, {"error": numbers})
            return
        deltas = [{self.server.field: "hm, "}, {self.server.field: "hm"}, {"content": "Yes"}]
        lines = [{"choices": [{"index": 0, "delta": delta}]} for delta in deltas]
        lines.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        tokens = sum(len(m["content"]) for m in body["messages"])
        lines.append({"choices": [], "usage": {"prompt_tokens": tokens, "completion_tokens": 3}})
        data = "".join(f"data: {json.dumps(line)}\n\n" for line in lines) + "data: [DONE]\n\n"
        self._send(200, data)

    def _send(self, status, body):
        data = (body if isinstance(body, str) else json.dumps(body)).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def scripted():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Scripted)
    server.bodies, server.field = [], "reasoning_content"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_thoughts_come_through_a_server(scripted, capsys, field):
    scripted[0].field = field
    conversation = RemoteConversation(scripted[1])
    pieces = list(conversation.say("hi"))
    assert "".join(p.text for p in pieces if p.thought) == "hm, hm"
    assert conversation.messages[-1] == {
        "role": "assistant",
        "content": "Yes",
        "reasoning_content": "hm, hm",
    }
    assert 2 < conversation.count() < 10  # estimated from the two that "hi" has
    assert cli.main(["chat", "m1", "-p", "hi", "--server", scripted[1]]) == 0
    shown = capsys.readouterr()
    assert shown.out == "Yes\n"
    assert shown.err.startswith("[thought for ")
    assert scripted[0].bodies[-1]["model"] == "m1"


def test_a_servers_full_context_is_known_as_one(scripted):
    conversation = RemoteConversation(scripted[1], system="Be kind.")
    for i in range(3):
        list(conversation.say(f"{i}" * 40))
    with pytest.raises(ContextError) as caught:
        conversation.say("x" * 3000)
    assert (caught.value.n_prompt, caught.value.n_ctx) == (900, 180)
    assert conversation.n_ctx == 180
    assert drop_oldest(conversation) == 4
    assert [m["role"] for m in conversation.messages] == ["system", "user", "assistant"]
    assert list(RemoteHost(conversation).models()) == ["m1"]


def test_an_answer_is_gone_on_with(model, server):
    conversation = RemoteConversation(server[0], "secret", "Be kind.")
    whole = "".join(p.text for p in conversation.say("hi", GREEDY, 12))
    conversation.messages[-1]["content"] = whole[:4]
    list(conversation.go_on(GREEDY, 2))
    assert conversation.messages[-1]["content"].startswith(whole[:4])
    assert len(conversation.messages[-1]["content"]) > 4
    assert len(conversation.messages) == 3
