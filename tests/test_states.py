"""States of recurrent layers: back to checkpoints only, forks copy, a broken step recovers."""

import numpy as np
import pytest

from ggq.errors import UsageError
from ggq.models.layers.base import Memory
from ggq.runtime.cache.kvcache import CHECKPOINTS, KVCache, Sequence
from ggq.runtime.cache.layout import PAGE

LAYERS = [Memory(1, 16, 16), Memory(states=(3, 5))]


@pytest.fixture
def cache():
    return KVCache(LAYERS, 8 * PAGE, "f32")


def advance(sequence, n):
    """Do what a step does: the state is the number of tokens so far."""
    sequence.reserve(n)
    sequence._state[:] = sequence.length + n
    sequence.advance(n)


def state(sequence):
    assert (sequence._state == sequence._state[0]).all()
    return int(sequence._state[0])


def test_layers_have_their_own_part_of_the_state(cache):
    assert cache.state_floats == 8
    assert cache.state_offsets == [(0, 0), (0, 12)]
    assert len({id(name) for pair in cache.state_names for name in pair}) == 4
    sequence = Sequence(cache)
    assert sequence.state_address == sequence._state.ctypes.data


def test_truncation_goes_back_to_a_checkpoint(cache):
    sequence = Sequence(cache)
    advance(sequence, 10)
    advance(sequence, 20)
    advance(sequence, 1)
    assert (sequence.truncate(31), state(sequence)) == (31, 31)
    assert (sequence.truncate(30), state(sequence)) == (30, 30)
    assert (sequence.truncate(29), state(sequence), sequence.length) == (10, 10, 10)
    assert (sequence.truncate(9), state(sequence)) == (0, 0)


def test_the_first_and_the_newest_checkpoints_are_kept(cache):
    sequence = Sequence(cache)
    for _ in range(CHECKPOINTS + 3):
        advance(sequence, 10)
    first = CHECKPOINTS + 3 - CHECKPOINTS + 2
    kept = [at for at, _ in sequence._checkpoints]
    assert kept == [10, *(10 * i for i in range(first, CHECKPOINTS + 4))]
    assert sequence.truncate(25) == 10


def test_forks_copy_the_state(cache):
    sequence = Sequence(cache)
    advance(sequence, 10)
    advance(sequence, 1)
    whole, part = sequence.fork(), sequence.fork(10)
    assert (whole.length, state(whole), part.length, state(part)) == (11, 11, 10, 10)
    nothing = sequence.fork(7)
    assert (nothing.length, state(nothing)) == (0, 0)
    advance(whole, 2)
    assert (state(sequence), state(whole)) == (11, 13)


def test_a_broken_step_ends_at_a_known_state(cache):
    sequence = Sequence(cache)
    advance(sequence, 10)
    advance(sequence, 1)
    sequence._state[:] = np.nan  # half done
    sequence.recover()
    assert (sequence.length, state(sequence)) == (10, 10)
    sequence._state[:] = np.nan
    sequence.recover()
    assert (sequence.length, state(sequence)) == (10, 10)


def test_without_states_any_length_is_reachable():
    sequence = Sequence(KVCache([Memory(1, 16, 16)], 4 * PAGE))
    sequence.reserve(100)
    sequence.advance(100)
    sequence.recover()
    assert sequence.truncate(37) == 37 and sequence.fork(5).length == 5


def guess(sequence, n):
    """Do what a step with guesses does."""
    sequence.reserve(n)
    sequence.hold()
    sequence._state[:] = sequence.length + n
    sequence.advance(n, answer=True)


def test_guesses_are_taken_back_to_where_they_began(cache):
    sequence = Sequence(cache)
    advance(sequence, 10)
    advance(sequence, 1)
    guess(sequence, 4)
    assert (sequence.truncate(13), state(sequence)) == (11, 11)  # between them nothing is known
    guess(sequence, 4)
    assert (sequence.truncate(15), state(sequence)) == (15, 15)  # all were right
    guess(sequence, 2)
    assert (sequence.truncate(16), state(sequence)) == (15, 15)
    assert (sequence.truncate(12), state(sequence)) == (10, 10)
    assert (sequence.truncate(10), state(sequence)) == (10, 10)


def test_an_answers_tokens_are_no_prompts_end(cache):
    sequence = Sequence(cache)
    advance(sequence, 10)
    for _ in range(CHECKPOINTS + 2):
        guess(sequence, 3)
    assert [at for at, _ in sequence._checkpoints] == [10]


def test_a_broken_step_with_guesses_recovers_to_before_it(cache):
    sequence = Sequence(cache)
    advance(sequence, 10)
    advance(sequence, 1)
    sequence.reserve(4)
    sequence.hold()
    sequence._state[:] = 77  # half moved
    sequence.recover()
    assert (sequence.length, state(sequence)) == (11, 11)


def test_a_fork_does_not_share_what_guesses_go_back_to(cache):
    sequence = Sequence(cache)
    advance(sequence, 10)
    advance(sequence, 1)
    guess(sequence, 4)
    fork = sequence.fork(11)
    assert (fork.length, state(fork)) == (11, 11)
    sequence.truncate(11)
    guess(sequence, 2)
    guess(sequence, 2)
    assert state(fork) == 11


def test_room_counts_what_is_free_and_a_page_that_must_be_copied(cache):
    sequence = Sequence(cache)
    assert sequence.room == 8 * PAGE
    advance(sequence, PAGE + 1)
    assert sequence.room == 7 * PAGE - 1
    fork = sequence.fork()
    assert fork.room == 6 * PAGE - 1
    fork.reserve(fork.room)
    assert sequence.room == PAGE - 1  # the page is its own now
    with pytest.raises(UsageError, match="is full"):
        sequence.reserve(PAGE)
