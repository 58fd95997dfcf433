"""Several threads on one model: each gets what it would get alone, or one clear error."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from ggufmaker import make_tiny_llama

import ggq
from ggq.runtime.cache.layout import PAGE
from ggq.runtime.engine import places
from ggq.runtime.engine.places import Places

PROMPTS = ["the end", "a b c d e f", "end of the the the", "x", "the cat the cat the", "and"]


def answer(model, prompt):
    return "".join(model.generate(prompt, max_tokens=40, temperature=0.8, seed=7))


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return make_tiny_llama(tmp_path_factory.mktemp("tiny") / "t.gguf", vocab="bpe", n_ctx=1024)


@pytest.fixture(scope="module")
def alone(path):
    with ggq.load(path, n_ctx=512, threads=1) as model:
        found = {prompt: answer(model, prompt) for prompt in PROMPTS}
        ids = model.tokenize("the end of the line " * 8)
        yield found, ids, model.logits(ids), model.embed(PROMPTS)


def together(jobs):
    """Run jobs in threads that begin at one moment; return their results in order."""
    ready = threading.Barrier(len(jobs))

    def run(job):
        ready.wait()
        return job()

    with ThreadPoolExecutor(len(jobs)) as pool:
        return list(pool.map(run, jobs))


@pytest.mark.parametrize("n_ctx", [512, 128])
@pytest.mark.parametrize("draft", ["ngram", "off"])
def test_threads_get_what_they_would_get_alone(path, alone, n_ctx, draft):
    """All that is made on first use is asked for at once; 128 positions hold two answers."""
    texts, ids, logits, vectors = alone
    with ggq.load(path, n_ctx=n_ctx, threads=2, draft=draft) as model:
        jobs = [lambda p=p: answer(model, p) for p in PROMPTS * 2]
        jobs += [lambda: model.logits(ids), lambda: model.embed(PROMPTS)]
        found = together(jobs)
        assert found[: len(PROMPTS) * 2] == [texts[p] for p in PROMPTS * 2]
        assert np.array_equal(found[-2], logits) and np.array_equal(found[-1], vectors)
        assert model.engine.cache.free_positions == model.engine.cache.n_pages * PAGE


def test_one_model_has_one_engine_and_one_tokenizer(path):
    with ggq.load(path, n_ctx=64, threads=1) as model:
        engines = together([lambda: model.engine] * 4 + [lambda: model.tokenizer] * 4)
        assert len({id(one) for one in engines}) == 2


def test_an_event_loop_goes_on_while_answers_are_written(path, alone):
    async def streamed(model, prompt):
        pieces, text = model.generate(prompt, max_tokens=40, temperature=0.8, seed=7), ""
        while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
            text += piece
        return text

    async def all_of_them(model):
        return await asyncio.gather(*(streamed(model, prompt) for prompt in PROMPTS))

    with ggq.load(path, n_ctx=512, threads=1) as model:
        assert asyncio.run(all_of_them(model)) == [alone[0][p] for p in PROMPTS]


def test_an_answer_that_is_left_half_read_holds_nobody_up(path, alone, monkeypatch):
    monkeypatch.setattr(places, "_PATIENCE", 0.05)
    with ggq.load(path, n_ctx=128, threads=1) as model:
        half = model.generate("the", max_tokens=None, seed=1)
        next(half)
        assert answer(model, "x") == alone[0]["x"]  # of the same thread: no waiting at all
        assert together([lambda: answer(model, "x")]) == [alone[0]["x"]]
        half.close()


def test_a_session_in_use_says_so(path, monkeypatch):
    begun, go_on = threading.Event(), threading.Event()
    with ggq.load(path, n_ctx=64, threads=1) as model:
        session, evaluate = model.session(), model.engine.evaluate

        def slow(*given):
            begun.set()
            go_on.wait(10)
            return evaluate(*given)

        monkeypatch.setattr(model.engine, "evaluate", slow)
        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(session.evaluate, [5, 6])
            assert begun.wait(10)
            with pytest.raises(ggq.GGQError, match="in use by another thread"):
                session.evaluate([7])
            go_on.set()
            assert len(first.result()) == model.hparams.n_vocab
        assert session.ids == [5, 6]


def test_places_are_waited_for():
    left = Places(2, lambda: 0.0)
    order = []

    def other():
        with left.of(2 * PAGE):
            order.append("second")

    with left.of(1):
        with left.of(2 * PAGE):  # the same thread's
            pass
        thread = threading.Thread(target=other)
        thread.start()
        thread.join(0.2)
        order.append("first")
    thread.join(5)
    assert order == ["first", "second"]
