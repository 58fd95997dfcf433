"""The scheduler with recurrent layers, whose states can go back only to checkpoints."""

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from schedules import answered_like_alone, ask, drain, free_all
from tinymodels import TINY, make_tiny

import ggq


@pytest.fixture(scope="module", params=["lfm2", "qwen35"])
def model(request, tmp_path_factory):
    tiny = next(t for t in TINY if t.label == request.param)
    folder = tmp_path_factory.mktemp(tiny.label)
    make_tiny(tiny, folder)
    (path,) = ggq.convert(folder, folder / "model.gguf", type="F32")
    with ggq.load(path, n_ctx=1024, threads=1, cache_type="f32") as model:
        yield model


def test_answers_are_those_of_each_alone(model):
    prompts, s = answered_like_alone(model, shared=90, own=20, parting=5, n_ctx=256, batch=32)
    assert s.stats.cached_tokens > 0
    again, _ = ask(s, prompts[3] + [9], max_tokens=8)
    drain(s)
    assert again.cached_tokens >= 90  # the end of the prompt is a checkpoint
    assert free_all(s)
