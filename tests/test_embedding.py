"""Embeddings are the mean of the hidden states before the head, as the reference computes them."""

import numpy as np
import pytest
from ggufmaker import make_tiny_llama

import ggq
from ggq.errors import UsageError
from ggq.runtime.backends.reference import ReferenceOps
from ggq.runtime.engine.embedding import Tokens
from ggq.runtime.engine.weights import Weights


@pytest.mark.parametrize("tied", [False, True])
def test_embeddings_are_the_references(tmp_path, tied):
    path = make_tiny_llama(tmp_path / "tiny.gguf", n_ctx=512, tied=tied)
    with ggq.load(path, threads=1, cache_type="f32") as model:
        for text in ("the rain", "the inn " * 60):
            ids = model.tokenize(text)
            ops = ReferenceOps(Weights(model.gguf))
            seen = []
            ops.on_linear_input(lambda name, x, seen=seen: seen.append((name, x)))
            ops.evaluate(model.hparams, ids)
            assert seen[-1][0] == ("token_embd.weight" if tied else "output.weight")
            mean = np.asarray(seen[-1][1], np.float64).mean(axis=0)
            expected = mean / np.linalg.norm(mean)
            np.testing.assert_allclose(model.embed([text])[0], expected, atol=2e-3)
        before = model.logits(ids)
        model.embed(["the rain"])
        np.testing.assert_array_equal(model.logits(ids), before)
        assert model.engine.cache.free_positions == 512
        with pytest.raises(UsageError, match="no tokens"):
            model.embedder.vectors([Tokens([])])
