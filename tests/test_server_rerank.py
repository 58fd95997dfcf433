"""The server ranks documents and embeds with options, in the forms that clients send."""

import base64

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("starlette", reason="the extra serve is not installed")
pytest.importorskip("httpx", reason="starlette's test client needs it")

from servers import serving
from test_classifiers import make_classifier
from tinyencoders import TEXTS, make_encoder

import ggq

QUERY = "quick fox"


@pytest.fixture(scope="module")
def ranker(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranker")
    make_classifier(folder, "xlm-roberta", 1)
    (path,) = ggq.convert(folder, folder / "x.gguf", type="F32")
    with ggq.load(path, threads=1) as model, serving(model) as client:
        yield model, client


@pytest.fixture(scope="module")
def embedder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("embedder")
    make_encoder("bert", folder, "mean_tokens")
    (folder / "config_sentence_transformers.json").write_text('{"prompts": {"query": "a box: "}}')
    (path,) = ggq.convert(folder, folder / "x.gguf", type="F32")
    with ggq.load(path, threads=1) as model, serving(model) as client:
        yield model, client


@pytest.mark.parametrize("path", ["/v1/rerank", "/rerank", "/v2/rerank", "/reranking"])
def test_documents_are_ranked(path, ranker):
    model, client = ranker
    body = {"model": "m", "query": QUERY, "documents": list(TEXTS), "top_n": 3}
    found = client.post(path, json={**body, "return_documents": True})
    assert found.status_code == 200, found.text
    answer = found.json()
    want = model.rerank(QUERY, TEXTS)[:3]
    assert [(r["index"], r["relevance_score"]) for r in answer["results"]] == want
    assert [r["document"]["text"] for r in answer["results"]] == [TEXTS[i] for i, _ in want]
    assert answer["model"] == "m" and answer["object"] == "list" and answer["id"]
    assert answer["usage"]["prompt_tokens"] == answer["usage"]["total_tokens"] > 20
    assert answer["meta"]["api_version"]["version"] == "2"


def test_other_forms_of_documents(ranker):
    _, client = ranker
    plain = client.post("/v1/rerank", json={"query": QUERY, "documents": list(TEXTS)}).json()
    objects = [{"text": text} for text in TEXTS]
    other = client.post("/v1/rerank", json={"query": QUERY, "documents": objects}).json()
    assert other["results"] == plain["results"] and "document" not in plain["results"][0]
    texts = client.post("/rerank", json={"query": QUERY, "texts": list(TEXTS), "return_text": True})
    assert [(r["index"], r["score"]) for r in texts.json()] == [
        (r["index"], r["relevance_score"]) for r in plain["results"]
    ]
    assert texts.json()[0]["text"] == TEXTS[texts.json()[0]["index"]]


@pytest.mark.parametrize(
    ("body", "line"),
    [
        ({"documents": ["a"]}, "query"),
        ({"query": "q"}, "documents: expected a list of texts that is not empty"),
        ({"query": "q", "documents": []}, "documents: expected a list of texts"),
        ({"query": "q", "documents": ["a", 3]}, "documents"),
        ({"query": "q", "documents": [{"title": "x"}]}, "documents[0]: expected a text, or an"),
        ({"query": "q", "documents": ["fox " * 999]}, "tokens"),
    ],
)
def test_wrong_requests_are_told(body, line, ranker):
    found = ranker[1].post("/v1/rerank", json=body)
    assert found.status_code == 400 and line in found.json()["error"]["message"], found.text


def test_long_documents_are_cut_if_asked(ranker):
    body = {"query": "q", "documents": ["fox " * 999], "truncate": True}
    assert ranker[1].post("/v1/rerank", json=body).status_code == 200


def test_other_models_do_not_rank(embedder):
    found = embedder[1].post("/v1/rerank", json={"query": "q", "documents": ["a"]})
    assert found.status_code == 400
    assert "this bert file is no reranker: it embeds texts" in found.json()["error"]["message"]


def test_a_ranker_gives_no_single_vectors(ranker):
    model, client = ranker
    found = client.post("/v1/embeddings", json={"input": "fox"})
    assert found.status_code == 400 and "pooling rank gives no single" in found.text
    found = client.post("/v1/embeddings", json={"input": "fox", "pooling": "cls"}).json()
    np.testing.assert_allclose(
        found["data"][0]["embedding"], model.embed("fox", pooling="cls")[0], atol=1e-6
    )


def test_embeddings_take_options(embedder):
    model, client = embedder

    def ask(**more):
        answer = client.post("/v1/embeddings", json={"input": list(TEXTS), **more})
        assert answer.status_code == 200, answer.text
        return [item["embedding"] for item in answer.json()["data"]]

    options = (
        *({"pooling": "cls"}, {"normalize": False}, {"dimensions": 12}),
        *({"prompt_name": "query"}, {"prompt": "over my "}),
    )
    for more in options:
        np.testing.assert_allclose(ask(**more), model.embed(TEXTS, **more), atol=1e-6)
    coded = [np.frombuffer(base64.b64decode(e), "<f4") for e in ask(encoding_format="base64")]
    np.testing.assert_array_equal(coded, model.embed(TEXTS))
    for more, line in (
        ({"dimensions": 65}, "dimensions 65: the model has 64"),
        ({"pooling": "none"}, "pooling none gives no single vector"),
        ({"pooling": "max"}, "pooling max: one of"),
        ({"prompt_name": "x"}, "prompt name 'x': the file has query"),
    ):
        found = client.post("/v1/embeddings", json={"input": "fox", **more})
        assert found.status_code == 400 and line in found.json()["error"]["message"], found.text
