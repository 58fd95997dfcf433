"""A hundred texts in ten languages have the vectors and scores of transformers' own pooling."""

import json
from dataclasses import replace

import numpy as np
import pytest
from floats import distance
from ten_languages import LANGUAGES, TEXTS
from tinyencoders import ENCODERS, make_model

import ggq

pytestmark = pytest.mark.slow


def make(folder, label, pooling=None, **more):
    """Write a tiny model, its tokenizer trained on the texts; return transformers' two."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    tiny = ENCODERS[label]
    if "num_labels" in more:
        tiny = replace(tiny, suffix="ForSequenceClassification")
    model = make_model(tiny, folder, TEXTS, **more)
    if pooling:
        kinds = ("Transformer", "Pooling", "Normalize")
        modules = [
            {"idx": i, "name": str(i), "path": f"{i}_{kind}" if i else ""}
            | {"type": f"sentence_transformers.models.{kind}"}
            for i, kind in enumerate(kinds)
        ]
        (folder / "modules.json").write_text(json.dumps(modules))
        (folder / "1_Pooling").mkdir()
        said = {"word_embedding_dimension": 64, f"pooling_mode_{pooling}": True}
        (folder / "1_Pooling" / "config.json").write_text(json.dumps(said))
    return model, transformers.AutoTokenizer.from_pretrained(folder), torch


@pytest.mark.parametrize(
    ("label", "pooling"),
    [("xlm-roberta", "cls_token"), ("xlm-roberta", "mean_tokens"), ("nomic-bert", "mean_tokens")],
)
def test_a_hundred_texts_have_the_vectors_of_transformers(label, pooling, tmp_path):
    reference, tokenizer, torch = make(tmp_path, label, pooling)
    assert len(LANGUAGES) == 10 and len(set(TEXTS)) == 100
    (path,) = ggq.convert(tmp_path, tmp_path / "m.gguf", "F32")
    want = []
    for text in TEXTS:
        given = tokenizer(text, return_tensors="pt")
        assert (given["input_ids"] == tokenizer.unk_token_id).float().mean() < 0.1
        with torch.no_grad():
            states = reference(**given).last_hidden_state[0].numpy()
        want.append(states[0] if pooling == "cls_token" else states.mean(0))
    want = np.array(want) / np.linalg.norm(want, axis=1, keepdims=True)
    with ggq.load(path, threads=1, cache_type="f32") as model:
        got = model.embed(TEXTS)
    assert (got * want).sum(axis=1).min() >= 0.9999
    assert np.median(want @ want.T) < 0.99  # the texts' vectors are not all alike


def test_a_cross_encoder_scores_as_transformers(tmp_path):
    reference, tokenizer, torch = make(tmp_path, "xlm-roberta", num_labels=1)
    (path,) = ggq.convert(tmp_path, tmp_path / "m.gguf", "F32")
    query = TEXTS[11]
    with torch.no_grad():
        pairs = [tokenizer(query, text, return_tensors="pt") for text in TEXTS]
        want = np.array([reference(**pair).logits[0, 0].item() for pair in pairs])
    with ggq.load(path, threads=1, cache_type="f32") as model:
        scores = {r.number: r.score for r in model.rerank(query, TEXTS)}
    assert distance(np.array([scores[i] for i in range(100)]), want) <= 1e-3
    assert want.std() > 0.05


@pytest.mark.parametrize("label", ["xlm-roberta", "nomic-bert"])
def test_sentence_transformers_has_the_same_vectors(label, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed")
    from sentence_transformers import SentenceTransformer

    make(tmp_path, label, "mean_tokens")
    (path,) = ggq.convert(tmp_path, tmp_path / "m.gguf", "F32")
    want = SentenceTransformer(str(tmp_path), device="cpu").encode(TEXTS)
    with ggq.load(path, threads=1, cache_type="f32") as model:
        assert (model.embed(TEXTS) * want).sum(axis=1).min() >= 0.9999
