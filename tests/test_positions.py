"""Learned positions: a model with an embedding of each has no context beyond them."""

import pytest
from tinymodels import TINY, make_tiny

import ggq
from ggq.converters.convert import convert


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("gpt2")
    make_tiny(next(t for t in TINY if t.label == "gpt2"), folder)
    return convert(folder, folder / "model.gguf", "F32")[0]


@pytest.mark.parametrize(("asked", "given"), [(None, 256), (0, 256), (64, 64), (1000, 256)])
def test_the_context_ends_with_the_positions(asked, given, path):
    with ggq.load(path, n_ctx=asked) as model:
        assert model.n_ctx == given


def test_a_prompt_beyond_them_is_refused(path):
    with ggq.load(path, n_ctx=1000) as model, pytest.raises(ggq.GGQError, match="256"):
        list(model.generate([5] * 300, max_tokens=1))
