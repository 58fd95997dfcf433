"""Ctrl-C in a long prompt: nothing more is computed, what whole steps computed stays."""

import os
import signal
import threading
import time

import numpy as np
import pytest
from ggufmaker import make_tiny_llama

import ggq
from ggq.runtime.cache.layout import STEP_TOKENS
from ggq.runtime.engine.cpu.executor import Executor
from ggq.runtime.generation.generation import Options, generate
from ggq.runtime.kernels import walk
from ggq.runtime.sampling import SamplingParams

GREEDY = SamplingParams(temperature=0.0)


@pytest.fixture
def model(tmp_path):
    with ggq.load(make_tiny_llama(tmp_path / "m.gguf", n_ctx=2048), n_ctx=2048, threads=2) as m:
        yield m


def prompt(model, n):
    n_vocab = model.tokenizer.n_vocab
    return [3 + i * 7 % (n_vocab - 3) for i in range(n)]


def test_whole_steps_stay_and_are_not_computed_again(model, monkeypatch):
    ids, batch = prompt(model, 1000), STEP_TOKENS
    whole, steps = Executor.run, []

    def interrupted(self, plan, profile):
        steps.append(plan)
        if len(steps) == 3:
            raise KeyboardInterrupt
        whole(self, plan, profile)

    session = model.session()
    monkeypatch.setattr(Executor, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        next(generate(session, model.tokenizer, ids, GREEDY, 4))
    assert len(steps) == 3
    assert session.ids == ids[: 2 * batch]
    options = Options()
    again = [p.token_id for p in generate(session, model.tokenizer, ids, GREEDY, 4, (), options)]
    assert options.stats.evaluated_tokens == 1000 - 2 * batch
    session.close()
    fresh = model.session()
    assert again == [p.token_id for p in generate(fresh, model.tokenizer, ids, GREEDY, 4)]


@pytest.mark.skipif(os.name != "posix", reason="signals to oneself are POSIX")
def test_a_signal_stops_the_work_between_rows(model, monkeypatch):
    ids = prompt(model, 2000)
    session, evaluated = model.session(), []
    session.evaluate(ids[:300])
    session.truncate(0)
    whole = Executor.run

    def counted(self, plan, profile):
        evaluated.append(session._sequence.length)
        if len(evaluated) == 2:
            threading.Timer(0.0, os.kill, (os.getpid(), signal.SIGINT)).start()
            time.sleep(0.2)  # the signal comes before this step's end
        whole(self, plan, profile)

    monkeypatch.setattr(Executor, "run", counted)
    with pytest.raises(KeyboardInterrupt):
        session.evaluate(ids)
    monkeypatch.undo()
    assert len(evaluated) == 2
    assert session.ids == ids[:STEP_TOKENS]
    rest = session.evaluate(ids[len(session.ids) : 300])
    session.close()
    expected = model.logits(ids[:300])[-1]
    assert np.allclose(rest, expected, atol=1e-5)


def test_no_worker_stays_in_a_step_that_ctrl_c_ended(model, monkeypatch):
    class Wakes(threading.Condition):
        def notify_all(self):
            raise KeyboardInterrupt

    ids, session = prompt(model, 300), model.session()
    session.evaluate(ids)
    session.truncate(0)
    executor = model.engine.backend._executor
    monkeypatch.setattr(executor, "_wake", Wakes())
    with pytest.raises(KeyboardInterrupt):
        session.evaluate(ids)
    assert executor._control[walk.ACTIVE] == 0
    plan = executor._held[-1]
    claims = plan.counters[: plan.n_rows * executor.n_threads * walk.LINE]
    assert not claims.any()  # closed: whoever wakes up late finds nothing to do
    monkeypatch.undo()
    session.truncate(0)
    rest = session.evaluate(ids)
    assert np.allclose(rest, model.logits(ids)[-1], atol=1e-5)
