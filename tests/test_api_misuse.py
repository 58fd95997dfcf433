"""The Python interface used wrongly: one GGQError, and sensible answers at the edges."""

import numpy as np
import pytest
from ggufmaker import make_tiny_llama

import ggq


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return make_tiny_llama(tmp_path_factory.mktemp("tiny") / "t.gguf", vocab="bpe")


def test_a_closed_model_says_so(path):
    with ggq.load(path, n_ctx=64, threads=1) as model:
        assert len(list(model.generate("the", max_tokens=2, stop=None))) <= 2
    with pytest.raises(ggq.GGQError, match="was closed"):
        model.logits([5])


def test_a_vocabulary_alone_writes_nothing(path):
    with ggq.load(path, vocab_only=True) as model:
        assert model.detokenize(model.tokenize("the")) == "the"
        with pytest.raises(ggq.GGQError, match="vocab_only"):
            list(model.generate("the", max_tokens=2))


def test_one_text_is_one_vector_and_none_is_none(path):
    with ggq.load(path, n_ctx=64, threads=1) as model:
        one = model.embed("the end")
        assert np.array_equal(one, model.embed(["the end"]))
        assert model.embed([]).shape == (0, one.shape[1])


def test_passes_may_be_named(path, tmp_path):
    with pytest.raises(ggq.GGQError, match="nope"):
        ggq.convert(path, tmp_path / "out.gguf", type="Q8_0", prepasses=["nope"])
