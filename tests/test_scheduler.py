"""The scheduler: answers as if alone, prefixes computed once, fair and bounded, nothing leaked.

Steps are driven by hand, so that every step is seen; only the threaded tests wait for time.
"""

import queue
import threading

import pytest
from ggufmaker import make_tiny_llama
from schedules import GREEDY, Spy, ask, drain, free_all

import ggq
from ggq.errors import UsageError
from ggq.runtime.batching.prefixes import FairQueue
from ggq.runtime.batching.refusals import QueueFullError
from ggq.runtime.batching.requests import Request
from ggq.runtime.batching.scheduler import Scheduler
from ggq.runtime.cache.layout import PAGE
from ggq.runtime.generation.generation import ContextError
from ggq.runtime.sampling import SamplingParams

N_CTX = 256


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = make_tiny_llama(tmp_path_factory.mktemp("tiny") / "tiny.gguf", n_ctx=N_CTX)
    with ggq.load(path, n_ctx=4 * N_CTX, threads=1) as model:
        yield model


MADE = []


@pytest.fixture(autouse=True)
def nothing_leaks():
    """After every test all pages are free once the kept prefixes are given up."""
    yield
    while MADE:
        s = MADE.pop()
        assert not s.n_running
        assert free_all(s)


def scheduler(model, **options):
    MADE.append(Scheduler(Spy(model.engine), model.tokenizer, **options))
    return MADE[-1]


# -- the same answers as alone


def test_answers_together_are_those_of_each_alone(model):
    prompts = [model.tokenize("the " * (7 * i + 1) + f"end {i}") for i in range(7)]
    alone = ["".join(model.generate(p, max_tokens=12, temperature=0.0)) for p in prompts]
    s = scheduler(model, n_slots=3)
    answers = []
    for i, prompt in enumerate(prompts):  # they join while others run
        answers.append(ask(s, prompt, max_tokens=12)[1])
        for _ in range(i % 3):
            s.step()
    drain(s)
    assert [a.text[0] for a in answers] == alone
    assert {a.ends[0] for a in answers} <= {"length", "stop"}
    assert s.stats.finished == 7


def test_answers_on_the_thread(model):
    s = scheduler(model).start()
    try:
        news = queue.Queue()
        ids = model.tokenize("the end")
        for _ in range(6):
            s.submit(Request(ids, GREEDY, max_tokens=5), news.put)
        ends = 0
        while ends < 6:
            ends += news.get(timeout=30).piece.finish_reason is not None
        assert s.call(lambda: threading.current_thread().name).result(30) == "ggq-scheduler"
    finally:
        s.close()
    with pytest.raises(UsageError, match="shutting down"):
        ask(s, ids)


def test_closing_tells_those_who_wait(model):
    s = scheduler(model, n_slots=1).start()
    all_answers = [ask(s, model.tokenize("a b"), ignore_eos=True)[1] for _ in range(5)]
    s.close()
    assert {a.ends[0] for a in all_answers} <= {"cancelled", "length"}
    assert all(a.ends for a in all_answers)


# -- prefixes


def test_a_prefix_is_computed_once(model):
    s = scheduler(model)
    system = model.tokenize("the rain in an inn is on the hill " * 3)
    first, _ = ask(s, system + model.tokenize("one", add_special=False), max_tokens=3)
    drain(s)
    before = s.engine.n_tokens
    second, answer = ask(s, system + model.tokenize("two", add_special=False), max_tokens=3)
    drain(s)
    assert first.cached_tokens == 0
    assert second.cached_tokens >= len(system)
    assert s.engine.n_tokens - before == second.prompt_tokens - second.cached_tokens + 2
    ids = list(second.request.ids)
    assert answer.text[0] == "".join(model.generate(ids, max_tokens=3, temperature=0.0))


def test_the_same_long_prompt_at_once_is_evaluated_once(model):
    s = scheduler(model, batch=32)
    ids = model.tokenize("the rain in an inn is on the hill " * 4)
    answers = [ask(s, ids, max_tokens=4)[1] for _ in range(4)]
    drain(s)
    assert s.engine.n_tokens < 2 * len(ids)
    assert len({a.text[0] for a in answers}) == 1


def test_a_follower_takes_over_when_the_first_is_cancelled(model):
    s = scheduler(model, batch=32)
    ids = model.tokenize("the rain in an inn is on the hill " * 4)
    first, gone = ask(s, ids, max_tokens=4)
    _, answer = ask(s, ids, max_tokens=4)
    s.step()
    first.cancel()
    drain(s)
    assert gone.ends == {0: "cancelled"}
    assert answer.text[0] == "".join(model.generate(ids, max_tokens=4, temperature=0.0))


def test_choices_share_their_prompt_and_differ(model):
    s = scheduler(model)
    ids = model.tokenize("the rain in an inn is on the hill " * 3)
    hot = SamplingParams(temperature=2.0, top_k=0, top_p=1.0, min_p=0.0, seed=5)
    ticket, answer = ask(s, ids, params=hot, n=3, max_tokens=6)
    drain(s)
    assert sorted(answer.ends) == [0, 1, 2]
    assert len(set(answer.text.values())) == 3
    assert ticket.generated_tokens <= 18
    assert s.engine.n_tokens < len(ids) + 3 * 8
    _, again = ask(s, ids, params=hot, n=3, max_tokens=6)
    drain(s)
    assert again.text == answer.text  # the seed makes all choices reproducible


def test_kept_prefixes_give_way(tmp_path):
    path = make_tiny_llama(tmp_path / "tiny.gguf", n_ctx=2 * PAGE)
    with ggq.load(path, n_ctx=2 * PAGE, threads=1) as small:
        s = scheduler(small, n_slots=1)
        for i in range(5):
            ids = small.tokenize(f"{i} " * 40)
            _, answer = ask(s, ids, max_tokens=40, ignore_eos=True)
            drain(s)
            assert answer.ends == {0: "length"}
        assert free_all(s)
        MADE.clear()


# -- running answers keep flowing


def test_long_prompts_are_cut_while_answers_run(model):
    s = scheduler(model)
    ask(s, model.tokenize("a b"), max_tokens=60, ignore_eos=True)
    for _ in range(5):
        s.step()
    s.pace.budget = lambda n_answers, depth: 20
    ask(s, model.tokenize("e" * 150), max_tokens=2)
    at = len(s.engine.steps)
    drain(s)
    chunks = [ids for step in s.engine.steps[at:] for ids in step if len(ids) > 1]
    assert len(chunks) >= 7
    assert max(map(len, chunks)) == 20
    assert all(len(step[0]) == 1 for step in s.engine.steps[at : at + len(chunks)])


def test_waiting_prompts_share_a_step(model):
    s = scheduler(model, batch=32)
    for letter in "ab":
        ask(s, model.tokenize(letter * 60), max_tokens=2)
    s.step()
    assert [len(ids) for ids in s.engine.steps[0]] == [16, 16]
    drain(s)


def test_cancel_stops_before_the_next_token(model):
    s = scheduler(model)
    ticket, answer = ask(s, model.tokenize("a b"), ignore_eos=True)
    for _ in range(4):
        s.step()
    ticket.cancel()
    n_tokens, n_generated = s.engine.n_tokens, ticket.generated_tokens
    s.step()
    assert answer.ends == {0: "cancelled"}
    assert (s.engine.n_tokens, ticket.generated_tokens) == (n_tokens, n_generated)
    assert not s.n_running


def test_a_listener_that_fails_is_dropped(model):
    s = scheduler(model)

    def broken(event):
        raise RuntimeError("gone")

    ask(s, model.tokenize("a"), broken, logprobs=0, ignore_eos=True)
    _, answer = ask(s, model.tokenize("b"), max_tokens=3)
    drain(s)
    assert answer.ends[0] in ("length", "stop")


# -- the queue


def test_queue_is_bounded(model):
    s = scheduler(model, n_slots=1, max_waiting=2)
    ids = model.tokenize("a")
    answers = [ask(s, ids, max_tokens=2)[1] for _ in range(3)]
    with pytest.raises(QueueFullError, match="requests are waiting: try again in") as caught:
        ask(s, ids)
    assert 1 <= caught.value.retry_after <= 60
    assert s.stats.refused == 1
    drain(s)
    assert all(a.ends for a in answers)
    ask(s, ids, n=9, max_tokens=1)  # one request alone always finds room
    drain(s)


def test_clients_take_turns():
    line = FairQueue()
    for name in ("a1", "a2", "a3", "b1", "c1", "b2"):
        line.push(name[0], name)
    assert len(line) == 6
    assert line.remove(lambda name: name != "a2") == ["a2"]
    assert [line.pop() for _ in range(5)] == ["a1", "b1", "c1", "a3", "b2"]
    assert not line


def test_refused_prompts(model):
    s = scheduler(model)
    with pytest.raises(ContextError) as caught:
        ask(s, [1] * (N_CTX + 1))
    assert (caught.value.n_prompt, caught.value.n_ctx) == (N_CTX + 1, N_CTX)
    with pytest.raises(UsageError, match="empty"):
        ask(s, [])
    with pytest.raises(UsageError, match="token id 99999"):
        ask(s, [1, 99999])
    with pytest.raises(UsageError, match="parallel answers"):
        scheduler(model, n_slots=0)


def test_the_context_ends_an_answer(model):
    s = scheduler(model)
    ids = [5] * (N_CTX - 3)
    ticket, answer = ask(s, ids, ignore_eos=True)
    drain(s)
    assert (answer.ends, answer.errors) == ({0: "length"}, [])
    assert ticket.generated_tokens == 4  # the last one need not be evaluated


def test_jobs_wait_for_room_in_the_cache(model):
    s = scheduler(model)
    ask(s, [5] * 200, max_tokens=1, ignore_eos=True)
    drain(s)
    future = s.call(lambda: s.engine.cache.free_positions, 4 * N_CTX)
    failing = s.call(lambda: 1 / 0)
    s._jobs.run(s._has_room)
    assert future.result(0) == 4 * N_CTX
    with pytest.raises(ZeroDivisionError):
        failing.result(0)


def test_one_bad_request_fails_alone(model):
    s = scheduler(model)

    def no_grammar():
        raise UsageError("grammar: no such rule")

    _, bad = ask(s, model.tokenize("a"), constraint=no_grammar)
    _, good = ask(s, model.tokenize("b"), max_tokens=3)
    drain(s)
    assert isinstance(bad.errors[0], UsageError)
    assert bad.ends == {0: "error"}
    assert good.ends[0] in ("length", "stop")
    assert s.stats.failed == 1


def test_a_failing_step_fails_those_in_it_and_no_more(model, monkeypatch):
    s = scheduler(model)
    _, first = ask(s, model.tokenize("a"), max_tokens=3)
    with monkeypatch.context() as patch:
        patch.setattr(s.engine._engine, "step", lambda parts: 1 / 0)
        s.step()
    assert isinstance(first.errors[0], ZeroDivisionError)
    _, second = ask(s, model.tokenize("a"), max_tokens=3)
    drain(s)
    assert second.ends[0] in ("length", "stop")
