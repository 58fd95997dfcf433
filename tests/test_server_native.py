"""llama-server's own paths: /completion, /infill and /slots, and gaps through Ollama's suffix."""

import json

import pytest

pytest.importorskip("starlette", reason="the extra serve is not installed")
pytest.importorskip("httpx", reason="starlette's test client needs it")

from ggufmaker import make_tiny_llama
from servers import serving

import ggq

SHORT = {"n_predict": 5, "temperature": 0, "ignore_eos": True}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    marks = {
        f"tokenizer.ggml.fim_{m}_token_id": 10 + i for i, m in enumerate(("pre", "suf", "mid"))
    }
    path = tmp_path_factory.mktemp("tiny") / "t.gguf"
    make_tiny_llama(path, n_ctx=512, vocab="bpe", n_layer=1, metadata=marks)
    with ggq.load(path, n_ctx=1024, threads=1) as model:
        yield model


@pytest.fixture(scope="module")
def client(model):
    with serving(model) as client:
        yield client


def test_completion_is_the_openai_one_in_other_words(client):
    found = client.post("/completion", json={"prompt": "the", **SHORT}).json()
    openai = client.post("/v1/completions", json={"prompt": "the", **SHORT}).json()
    assert found["content"] == openai["choices"][0]["text"]
    assert found["stop"] is True and found["stop_type"] == "limit"
    assert found["tokens_predicted"] == 5 and found["timings"]["predicted_n"] == 5
    assert found["generation_settings"]["temperature"] == 0
    reply = client.post("/completion", json={"prompt": "the", **SHORT, "stream": True})
    parts = [json.loads(x.removeprefix("data: ")) for x in reply.text.split("\n\n") if x]
    assert "".join(p["content"] for p in parts) == found["content"]
    assert [p["stop"] for p in parts] == [False] * (len(parts) - 1) + [True]


def test_prompts_of_tokens_and_probabilities(client, model):
    ids = model.tokenize("the")
    body = {**SHORT, "n_probs": 2}
    one, two = (client.post("/completion", json={"prompt": p, **body}).json() for p in ("the", ids))
    assert one["content"] == two["content"] and len(one["completion_probabilities"]) == 5
    assert all(len(e["top_logprobs"]) == 2 for e in one["completion_probabilities"])


def test_gaps_are_filled(client, model):
    body = {"input_prefix": "a", "input_suffix": "b", "prompt": "c", **SHORT}
    found = client.post("/infill", json=body).json()

    def plain(text):
        return model.tokenizer.encode(text, add_special=False)

    ids = [10, *plain("ac"), 11, *plain("b"), 12]
    if model.tokenizer.add_bos:
        ids.insert(0, model.tokenizer.bos_id)
    assert found["content"] == "".join(model.generate(ids, max_tokens=5, temperature=0.0))
    options = {"num_predict": 5, "temperature": 0}
    body = {"model": "m", "prompt": "ac", "suffix": "b", "options": options, "stream": False}
    assert client.post("/api/generate", json=body).json()["response"] == found["content"]
    assert "insert" in client.post("/api/show", json={"model": "tiny"}).json()["capabilities"]


def test_slots(client):
    found = client.get("/slots").json()
    assert len(found) == 4 and not any(slot["is_processing"] for slot in found)


@pytest.mark.parametrize(
    ("path", "body", "word"),
    [
        ("/completion", {"prompt": ["a", "b"]}, "one prompt"),
        ("/completion", {"prompt": "a", "n": 2}, "n: one answer"),
        ("/completion", {"prompt": [2**31]}, "token id"),
        ("/completion", {"prompt": ""}, "prompt"),
        ("/infill", {"input_prefix": "a", "prompt": [5]}, "prompt"),
        ("/infill", {"input_extra": [{"filename": "x"}]}, "input_extra"),
    ],
)
def test_mistakes_are_named(client, path, body, word):
    found = client.post(path, json=body)
    assert found.status_code == 400 and word in found.json()["error"]["message"], found.text
