"""The size of chunks: simulated steps of known cost, and what the pace makes of them."""

import pytest

from ggq.runtime.batching.pacing import Pace

ALONE = {1: 0.004, 4: 0.010}  # seconds of steps without prompts
TOKEN, POSITION = 0.0006, 0.0003 / 1000  # seconds of a prompt token, and more for each position


def took(n_answers, n, depth):
    return ALONE[n_answers] + 0.002 * (n > 0) + n * (TOKEN + POSITION * depth)


def run(pace, prompts, n_answers=4, chunk=None):
    """Evaluate prompts (start, end) one after the other; return the seconds of each step."""
    times = []
    for start, end in prompts:
        at = start
        while at < end:
            n = min(chunk or pace.budget(n_answers, at), end - at)
            times.append(took(n_answers, n, at + n / 2))
            if n:
                pace.mixed(n_answers, n, n * (at + n / 2), times[-1])
            else:
                pace.answers(n_answers, times[-1])
            at += n
    return times


def test_steps_with_prompts_take_about_twice_those_without():
    pace = Pace(256)
    times = run(pace, [(0, 600), (3000, 3400), (100, 500), (2000, 2400), (0, 300)])
    mixed = [t for t in times[30:] if t > ALONE[4]]
    assert len(mixed) > 50
    assert 1.8 * ALONE[4] < sum(mixed) / len(mixed) < 2.6 * ALONE[4]
    assert max(mixed) < 3.2 * ALONE[4]  # also where a prompt far in follows one at the beginning
    assert min(times) == ALONE[4]  # now and then the answers are measured alone


def test_first_steps_learn_before_they_take_much():
    pace = Pace(256)
    assert pace.budget(0, 0) == 256  # nobody waits for tokens
    assert pace.budget(4, 0) == 0
    pace.answers(4, ALONE[4])
    assert pace.budget(4, 0) == 16
    assert pace.budget(1, 0) == 0  # another number of answers is another measure


def test_chunks_are_never_useless_and_never_too_large():
    slow, quick = Pace(256), Pace(256)
    for pace, seconds in ((slow, 9.0), (quick, 0.0101)):
        pace.answers(4, 0.01)
        for _ in range(20):
            n = pace.budget(4, 0)
            pace.mixed(4, n, n * n / 2, seconds)
    assert (slow.budget(4, 0), quick.budget(4, 0)) == (8, 252)


def test_a_moment_of_a_busy_machine_is_not_believed():
    pace = Pace(256)
    run(pace, [(0, 2000)])
    before = pace.budget(4, 0)
    pace.mixed(4, 20, 200, 5.0)
    assert pace.budget(4, 0) > before / 3
    pace.answers(4, 7.0)
    run(pace, [(0, 1500)])
    assert pace.budget(4, 0) == pytest.approx(before, rel=0.5)
    slow = Pace(256)
    slow.answers(4, 8.0)  # the first step compiles
    slow.answers(4, 0.01)
    slow.mixed(4, 16, 128, 0.02)
    assert slow.budget(4, 0) < 40
