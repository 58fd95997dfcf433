"""The CPU engine against the float64 reference: prompts, single tokens, batches, threads, stops."""

import _thread
import threading
import time

import numpy as np
import pytest

import ggq
from ggq.errors import UsageError
from ggq.runtime.backends.reference import logits
from ggq.runtime.cache.layout import STEP_TOKENS
from ggq.runtime.engine.backend import Part
from ggq.runtime.engine.weights import Weights
from tests.ggufmaker import make_tiny_llama

IDS = np.random.default_rng(5).integers(3, 200, 70)
CLOSE = 1e-4  # of the largest logit: float32 weights and cache, sums in another order


@pytest.fixture(scope="module", params=[{}, {"n_head_kv": 4, "rope_factors": True, "tied": True}])
def path(request, tmp_path_factory):
    return make_tiny_llama(tmp_path_factory.mktemp("engine") / "tiny.gguf", **request.param)


@pytest.fixture(scope="module")
def model(path):
    with ggq.load(path, cache_type="f32", threads=2) as opened:
        yield opened


@pytest.fixture(scope="module")
def truth(model):
    return logits(Weights(model.gguf), model.hparams, IDS)


def _near(got, want):
    assert np.abs(got - want).max() <= CLOSE * np.abs(want).max()


def test_a_prompt_equals_the_reference(model, truth):
    _near(model.logits(IDS), truth)


@pytest.mark.parametrize("size", [1, 3, 4, 5])
def test_token_by_token_equals_the_reference(model, truth, size):
    sequence = model.engine.sequence()
    parts = [IDS[i : i + size] for i in range(0, len(IDS), size)]
    _near(np.concatenate([model.engine.evaluate(sequence, p, every=True) for p in parts]), truth)
    sequence.free()


def test_sequences_in_one_step_do_not_mix(model, truth):
    engine = model.engine
    sequences = [engine.sequence() for _ in range(3)]
    for n, sequence in enumerate(sequences):
        engine.evaluate(sequence, IDS[: 10 + n])
    parts = [Part(s, IDS[10 + n : 11 + n], np.array([True])) for n, s in enumerate(sequences)]
    _near(engine.step(parts), truth[10:13])
    for sequence in sequences:
        sequence.free()


def test_a_fork_shares_its_past_and_goes_its_own_way(model, truth):
    engine = model.engine
    first = engine.sequence()
    engine.evaluate(first, IDS[:66])  # one full page and a part of the next
    second = first.fork(65)
    engine.evaluate(first, IDS[:2])
    _near(engine.evaluate(second, IDS[65:68]), truth[67])
    first.truncate(66)
    _near(engine.evaluate(first, IDS[66:68]), truth[67])
    first.free()
    second.free()
    assert engine.cache.free_positions >= model.n_ctx


@pytest.mark.parametrize("threads", [1, 3])
def test_the_number_of_threads_changes_nothing(path, model, threads):
    with ggq.load(path, cache_type="f32", threads=threads) as other:
        assert np.array_equal(other.logits(IDS), model.logits(IDS))


def test_late_threads_do_no_harm(path, model):
    """More threads than cores, sizes that change: a late worker must not claim in the next step."""
    want = {n: model.logits(IDS[:n]) for n in (3, 5, 60)}
    with ggq.load(path, cache_type="f32", threads=6) as other:
        for _ in range(500):
            for n in (5, 60, 3, 60):
                assert np.array_equal(other.logits(IDS[:n]), want[n])


def test_quantized_weights_few_and_many_tokens(tmp_path):
    """Tokens one by one and all at once differ by 8-bit rounding of activations alone."""
    path = make_tiny_llama(tmp_path / "q8.gguf", type_id=8, n_embd=64)
    with ggq.load(path, cache_type="f32") as model:
        want = logits(Weights(model.gguf), model.hparams, IDS)
        session = model.session()
        single = np.stack([session.evaluate([i]) for i in IDS])
        for got in (model.logits(IDS), single):
            assert np.abs(got - want).max() < 0.05 * np.abs(want).max()


def test_half_precision_cache_is_near(path, truth):
    with ggq.load(path) as model:
        assert np.abs(model.logits(IDS) - truth).max() < 5e-3 * np.abs(truth).max()


def test_ids_and_lengths_are_checked(model):
    engine, sequence = model.engine, model.engine.sequence()
    for ids in ([-1], [10**6], []):
        with pytest.raises(UsageError):
            engine.evaluate(sequence, ids)
    with pytest.raises(UsageError, match=rf"{model.n_ctx + 1} tokens .* {model.n_ctx}"):
        engine.evaluate(sequence, np.ones(model.n_ctx + 1, int))
    with pytest.raises(UsageError, match=str(STEP_TOKENS)):
        engine.step([Part(sequence, np.ones(STEP_TOKENS + 1, int), np.ones(STEP_TOKENS + 1, bool))])
    assert sequence.length == 0


def test_ctrl_c_ends_a_long_evaluation_and_leaves_the_engine_usable(tmp_path):
    path = make_tiny_llama(tmp_path / "slow.gguf", n_embd=512, n_ff=2048, n_layer=8, n_ctx=8192)
    ids = np.tile(IDS, 200)[:8000]
    with ggq.load(path, n_ctx=8192, threads=2) as model:
        want = model.logits(IDS)
        timer = threading.Timer(0.3, _thread.interrupt_main)
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            for _ in range(1000):
                model.logits(ids)
        assert np.array_equal(model.logits(IDS), want)


def test_closing_ends_the_threads(path):
    before = threading.active_count()
    with ggq.load(path, threads=3) as model:
        model.logits(IDS[:5])
        assert threading.active_count() == before + 2
        time.sleep(0.1)  # idle workers park; they must wake again
        model.logits(IDS[:5])
    assert threading.active_count() == before


def test_a_closed_session_takes_no_pages(tmp_path):
    with ggq.load(make_tiny_llama(tmp_path / "t.gguf", n_ctx=64), n_ctx=64) as model:
        session = model.session()
        session.evaluate([1, 2])
        with pytest.raises(ggq.GGQError, match="at least 0"):
            session.truncate(-1)
        session.close()
        with pytest.raises(ggq.GGQError, match="closed"):
            session.evaluate([3])
        assert len(model.session().evaluate(list(range(3, 67)))) > 0
