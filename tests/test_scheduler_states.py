"""The scheduler with recurrent layers, whose states can go back only to checkpoints."""

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from schedules import Spy, ask, drain, free_all
from tinymodels import TINY, make_tiny

import ggq
from ggq.runtime.scheduler import Scheduler


@pytest.fixture(scope="module", params=["lfm2", "qwen35"])
def model(request, tmp_path_factory):
    tiny = next(t for t in TINY if t.label == request.param)
    folder = tmp_path_factory.mktemp(tiny.label)
    make_tiny(tiny, folder)
    (path,) = ggq.convert(folder, folder / "model.gguf", type="F32")
    with ggq.load(path, n_ctx=1024, threads=1, cache_type="f32") as model:
        yield model


def test_answers_are_those_of_each_alone(model):
    n_vocab = model.tokenizer.n_vocab
    shared = [3 + 7 * i % (n_vocab - 3) for i in range(90)]
    prompts = [shared + [3 + (11 * i + k) % (n_vocab - 3) for i in range(20)] for k in range(5)]
    prompts += [prompts[0], prompts[0] + [5, 6, 7], shared]
    alone = ["".join(model.generate(p, max_tokens=8, temperature=0.0)) for p in prompts]
    s = Scheduler(Spy(model.engine), model.tokenizer, n_slots=3, n_ctx=256, batch=32)
    answers = []
    for i, prompt in enumerate(prompts):
        answers.append(ask(s, prompt, max_tokens=8)[1])
        for _ in range(i % 4):
            s.turn()
    drain(s)
    assert [a.text[0] for a in answers] == alone
    assert s.stats.cached_tokens > 0
    again, _ = ask(s, prompts[3] + [9], max_tokens=8)
    drain(s)
    assert again.cached_tokens >= 90  # the end of the prompt is a checkpoint
    assert free_all(s)
