"""``ggq chat --server``: a conversation with a server that really listens."""

import pytest

pytest.importorskip("uvicorn", reason="the extra serve is not installed")
pytest.importorskip("httpx", reason="starlette's test client needs it")

from ggufmaker import make_tiny_llama
from servers import listening

import ggq
from ggq import cli
from ggq.errors import UsageError
from ggq.runtime.chat.remote import RemoteConversation
from ggq.runtime.generation.generation import Options
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
    with pytest.raises(UsageError, match=r"127\.0\.0\.1:1/"):
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
