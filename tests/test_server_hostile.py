"""Wrong requests to every interface: never a 5xx, one line that names the field, nothing silent."""

import json

import pytest

pytest.importorskip("starlette", reason="the extra serve is not installed")
pytest.importorskip("httpx", reason="starlette's test client needs it")

from ggufmaker import make_tiny_llama
from hostile_requests import RAW, TOGETHER, TOLD, WRONG
from servers import CHAT, HI, serving

import ggq

GOOD = {
    CHAT: {"messages": HI, "max_tokens": 2},
    "/v1/completions": {"prompt": "hi", "max_tokens": 2},
    "/v1/responses": {"input": "hi", "max_output_tokens": 2},
    "/v1/messages": {"messages": HI, "max_tokens": 2},
    "/v1/embeddings": {"input": "fox"},
    "/v1/rerank": {"query": "fox", "documents": ["a", "b"]},
}


@pytest.fixture(scope="module")
def writer(tmp_path_factory):
    path = tmp_path_factory.mktemp("tiny") / "t.gguf"
    make_tiny_llama(path, n_ctx=4096, vocab="bpe", n_layer=1)
    with ggq.load(path, n_ctx=8192, threads=1) as model, serving(model, max_tokens=3) as client:
        yield client


@pytest.fixture(scope="module")
def clients(tmp_path_factory, writer):
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from test_classifiers import make_classifier
    from tinyencoders import make_encoder

    folders = [tmp_path_factory.mktemp(name) for name in ("ranker", "embedder")]
    make_classifier(folders[0], "xlm-roberta", 1)
    make_encoder("bert", folders[1], "mean_tokens")
    ranker, embedder = (ggq.convert(folder, folder / "x.gguf", type="F32")[0] for folder in folders)
    with (
        ggq.load(ranker, threads=1) as one,
        serving(one) as ranking,
        ggq.load(embedder, threads=1) as two,
        serving(two) as embedding,
    ):
        own = {"/v1/rerank": ranking, "/v1/embeddings": embedding}
        yield {path: own.get(path, writer) for path in GOOD}


def line_of(found):
    """Return the line of a refusal."""
    assert 400 <= found.status_code < 500, found.text
    line = found.json()["error"]["message"]
    assert line and "\n" not in line and len(line) <= 600
    return line


@pytest.mark.parametrize("path", WRONG)
def test_each_wrong_value_is_refused_by_its_field(path, clients):
    sent = [(field, value) for field, values in WRONG[path].items() for value in values]
    assert len(sent) >= 60
    silent = []
    for field, value in sent:
        body = json.dumps({**GOOD[path], field: value})
        found = clients[path].post(path, content=body)
        if found.status_code < 400 or field.rstrip("s") not in line_of(found):
            silent.append((field, str(value)[:80], found.status_code, found.text[:160]))
    assert not silent, silent


@pytest.mark.parametrize(("fields", "named"), TOGETHER)
def test_fields_that_contradict_each_other(writer, fields, named):
    body = {"messages": HI, **({} if "max_tokens" in fields else {"max_tokens": 2}), **fields}
    assert line_of(writer.post(CHAT, json=body)).startswith(named)


@pytest.mark.parametrize(("path", "fields", "note"), TOLD)
def test_what_has_no_effect_is_told(writer, path, fields, note):
    found = writer.post(path, json={**GOOD[path], **fields})
    assert found.status_code == 200, found.text
    told = found.headers.get("x-ggq-notes", "")
    assert note in told if note else not told


@pytest.mark.parametrize("path", GOOD)
def test_bodies_that_are_no_request(writer, path):
    for raw in RAW:
        line_of(writer.post(path, content=raw))


def test_what_a_refusal_says_is_part_of_the_conversation(writer):
    said = {"role": "assistant", "content": None, "refusal": "I will not"}
    body = {"messages": [*HI, said, *HI]}
    assert "I will not" in writer.post("/apply-template", json=body).json()["prompt"]


def test_calls_of_custom_tools_in_a_chat(writer):
    call = {"id": "c", "type": "custom", "custom": {"name": "patch", "input": "a b"}}
    body = {"messages": [*HI, {"role": "assistant", "tool_calls": [call]}, *HI]}
    prompt = writer.post("/apply-template", json=body).json()["prompt"]
    assert '"patch"' in prompt and '{"input": "a b"}' in prompt


def test_a_ranking_in_either_form_follows_every_option(clients):
    client = clients["/v1/rerank"]
    for field, inside in (("documents", lambda a: a["results"]), ("texts", lambda a: a)):
        for option in ("return_documents", "return_text"):
            body = {"query": "fox", field: ["a", "b", "c"], "top_n": 2, option: True}
            found = inside(client.post("/v1/rerank", json=body).json())
            assert len(found) == 2 and all("text" in x or "document" in x for x in found)


def test_a_prompt_goes_before_texts_only(clients):
    body = {"input": [5, 6], "prompt": "over "}
    found = clients["/v1/embeddings"].post("/v1/embeddings", json=body)
    assert line_of(found) == "prompt: goes before texts, the input holds token ids"
