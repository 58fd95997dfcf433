"""Drafters and when they are asked: what is guessed, what it may cost, when it stops."""

import numpy as np
import pytest
from toy_model import ToySession, tokens

from ggq.runtime.generation.drafting import drafters
from ggq.runtime.generation.drafting.base import Draft
from ggq.runtime.generation.drafting.model import DraftModel
from ggq.runtime.generation.drafting.mtp import HeadDrafter
from ggq.runtime.generation.drafting.ngram import NGram
from ggq.runtime.generation.drafting.odds import Costs, Odds
from ggq.runtime.generation.drafting.speculation import Speculation

SECONDS = {1: 1.0, 2: 1.35, 3: 1.8, 4: 2.2, 8: 3.2, 16: 8.0}  # of steps, by their tokens


def seconds(n):
    """Return what a step takes, between the known ones."""
    low = max(m for m in SECONDS if m <= n)
    high = min((m for m in SECONDS if m >= n), default=low)
    share = (n - low) / (high - low) if high > low else 0
    return SECONDS[low] + share * (SECONDS[high] - SECONDS[low])


class Oracle:
    """Knows the text, and for each of its places whether it guesses right."""

    prior, thinks = (0.9,), False

    def __init__(self, text, right):
        self.text, self.right = text, right

    def start(self):
        return self

    def guess(self, ids, limit):
        at = len(ids)
        guessed = [
            t if self.right(at + i) else -1 for i, t in enumerate(self.text[at : at + limit])
        ]
        return Draft(guessed, [0] * len(guessed))

    def close(self):
        pass


def time_of(oracle, n_tokens, n_answers=1, measured=seconds):
    """Return the time of ``n_answers`` alike, written side by side, in those of plain ones."""
    speculation = Speculation(oracle)
    writers = [speculation.start() for _ in range(n_answers)]
    ids, total = [oracle.text[:1] for _ in writers], 0.0
    while any(len(each) < n_tokens for each in ids):
        live = [i for i, each in enumerate(ids) if len(each) < n_tokens]
        plans = [(writers[i], ids[i], n_tokens - len(ids[i]) - 1) for i in live]
        speculation.plan(plans, len(live))
        steps = [(writers[i], 1 + len(writers[i].draft.tokens)) for i in live]
        for i in live:
            while True:
                token = oracle.text[len(ids[i])]
                ids[i].append(token)
                if not writers[i].accept(token):
                    break
        step = measured(sum(n for _, n in steps))
        total += step
        speculation.learn(steps, step)
    return total / (n_tokens - 1) / measured(n_answers)


TEXT = list(range(100, 1200))


def test_guesses_that_are_right_save_time():
    assert time_of(Oracle(TEXT, lambda at: True), 300) < 0.45


@pytest.mark.parametrize("n_answers", [1, 4])
@pytest.mark.parametrize("n_tokens", [80, 128, 1000])
def test_guesses_that_are_wrong_soon_stop(n_tokens, n_answers):
    """However sure the drafter is: an answer takes two hundredths longer at most."""
    assert time_of(Oracle(TEXT, lambda at: False), n_tokens, n_answers) < 1.02


def test_it_stops_where_steps_with_guesses_cost_too_much():
    right = Oracle(TEXT, lambda at: True)
    assert time_of(right, 300, measured=lambda n: 1.2 * n - 0.2) < 1.02


def test_it_begins_again_where_guesses_are_right_again():
    late = time_of(Oracle(TEXT, lambda at: at > 400), 1000)
    assert late < 0.4 + 0.6 * 0.6


def test_answers_side_by_side_share_a_step():
    assert time_of(Oracle(TEXT, lambda at: True), 300, n_answers=4) < 0.75


def test_tokens_that_are_evaluated_again_count():
    speculation = Speculation(Oracle(TEXT, lambda at: False), replays=True)
    plain = Speculation(Oracle(TEXT, lambda at: False))
    for each in (speculation, plain):
        for n in (1, 2, 4, 8):
            each._costs.learn(n, seconds(n))
    chances = [0.6, 0.4, 0.3]
    assert speculation._best(chances, 1, 1) <= plain._best(chances, 1, 1)
    assert plain._best(chances, 1, 1) > 0


# -- from the text


def guesses(text, limit=8):
    return bytes(NGram().start().guess(list(text), limit).tokens)


def test_what_followed_before_is_guessed():
    assert guesses(b"the cat sat. the cat", 5) == b" sat."


def test_the_longest_match_counts_then_the_latest():
    assert guesses(b"xabcd1 yabcd2 zbcd3 yabcd", 1) == b"2"
    assert guesses(b"abcd1 abcd2 abcd", 1) == b"2"


def test_beyond_the_end_a_pattern_goes_on():
    assert guesses(b"-=-=-=-", 6) == b"=-=-=-"


def test_nothing_is_guessed_without_a_match():
    assert guesses(b"abcdefgh") == b""
    assert guesses(b"a") == b""


def test_it_goes_on_beside_the_place_it_read_from():
    text = b"def load(path): open(path); close(path)\n"
    lookup, ids = NGram().start(), list(text + b"def load(")
    assert bytes(lookup.guess(ids, 3).tokens) == b"pat"
    ids += b"x"  # another name ...
    assert lookup.guess(ids, 3).tokens == ()
    ids += b")"
    draft = lookup.guess(ids, 6)
    assert bytes(draft.tokens) == b": open"  # ... and after it as before
    assert draft.grades[0] == 0


def test_grades_rise_with_the_match():
    few, many = (
        NGram().start().guess(list(t), 3).grades for t in (b"abcd abc", 2 * b"a longer one")
    )
    assert few[0] < many[0]
    assert list(many) == sorted(many)
    assert max(many) < len(NGram.prior)


def test_drafters_are_found_by_their_files():
    assert drafters()["ngram"] is NGram


# -- what is measured


def test_odds_move_from_what_was_known_to_what_is_seen():
    odds = Odds(lambda grade: 0.5, weight=4, memory=100)
    assert odds.chance(0) == 0.5
    for _ in range(50):
        odds.learn(0, True)
    assert odds.chance(0) > 0.9
    assert odds.chance(1) == 0.5
    odds.fade(0.0)
    assert odds.chance(0) == 0.5


def test_costs_are_those_measured_and_between_them_as_usual():
    costs = Costs()
    assert costs.seconds(1) == 0.0
    costs.learn(1, 0.010)
    assert costs.seconds(1) == 0.010
    assert 0.010 < costs.seconds(2) < costs.seconds(4) < costs.seconds(16)
    costs.learn(4, 0.013)
    assert costs.seconds(4) == 0.013
    costs.learn(4, 10.0)  # the machine was busy
    assert costs.seconds(4) < 0.014


# -- of a smaller model


class Small(ToySession):
    """A draft model's sequence."""

    room = 500
    closed = False

    def close(self):
        self.closed = True


def test_a_model_guesses_what_it_would_write_while_it_is_sure():
    session, closed = Small([tokens("yes it is")]), []
    drafter = DraftModel(lambda: session, lambda: closed.append(True), 260, 900)
    prompt = tokens(256, "assistant\n")
    reader = drafter.start()
    assert bytes(reader.guess(prompt, 4).tokens) == b"yes "
    assert bytes(reader.guess(prompt + tokens("ye"), 3).tokens) == b"s i"  # it went back
    assert session.ids == prompt + tokens("yes ")
    session.room = 0
    assert reader.guess(prompt + tokens("yes i"), 3).tokens == ()
    reader.close()
    session.room = 500
    again = drafter.start()
    again.guess(prompt, 2)
    assert session.evaluated[-2:] == [[10], [ord("y")]]  # the sequence knew the rest
    again.close()
    drafter.close()
    assert session.closed
    assert closed


def test_tokens_that_a_draft_model_does_not_know_end_its_guesses():
    drafter = DraftModel(lambda: Small([tokens("yes")]), lambda: None, ord("s"), 900)
    prompt = tokens("assistant\n")
    assert drafter.start().guess([*prompt, 200], 4).tokens == ()


def test_a_long_prompt_is_read_bit_by_bit():
    session = Small([tokens("yes")])
    session.room = 900
    reader = DraftModel(lambda: session, lambda: None, 260, 900).start()
    assert reader.guess([7] * 600, 4).tokens == ()
    assert reader.guess([7] * 600, 4).tokens == ()
    assert [len(ids) for ids in session.evaluated] == [256, 256]
    assert reader.guess([7] * 600, 4).tokens


# -- of a model's own head


class Counting:
    """A head that knows that tokens count up, and the states of the latest 300 of them.

    It is unsure of multiples of 10. A state is the token that it belongs to.
    """

    room, n = 500, 0

    def __init__(self):
        self.read, self.closed = [], False

    def sequence(self):
        return self

    def states(self, ids):
        start = max(0, len(ids) - 1 - 300)
        return start, np.array(ids[start:-1], np.float32)[:, None]

    def predict(self, sequence, ids, states):
        assert states[:, 0].tolist() == [token - 1 for token in ids]
        self.read.append(ids)
        self.n += len(ids)
        logits = np.zeros(1000, np.float32)
        logits[ids[-1] + 1] = 1.0 if (ids[-1] + 1) % 10 == 0 else 20.0
        return logits, np.array([[ids[-1]]], np.float32)

    def truncate(self, length):
        self.n = min(self.n, length)
        return self.n

    def free(self):
        self.closed = True


def test_a_head_goes_on_from_its_own_guesses_while_it_is_sure():
    drafter = HeadDrafter()
    assert drafter.start().guess([1, 2, 3], 4).tokens == ()  # no head yet
    drafter.head = head = Counting()
    reader, ids = drafter.start(), list(range(1, 13))
    assert reader.guess(ids, 4).tokens == [13, 14, 15, 16]
    assert head.read == [ids[1:], [13], [14], [15]]
    assert head.n == len(ids) - 1  # what it guessed is taken back
    assert reader.guess([*ids, 13, 14, 15, 16, 17], 4).tokens == [18, 19]
    assert head.read[4] == [13, 14, 15, 16, 17]
    head.room = 5
    assert reader.guess(list(range(1, 23)), 4).tokens == ()  # five to read leave none to guess
    reader.close()
    assert head.closed


def test_of_a_long_prompt_a_head_reads_the_end():
    drafter = HeadDrafter()
    drafter.head = head = Counting()
    drafter.start().guess(list(range(1, 603)), 1)
    assert head.read == [list(range(347, 603))]


def test_what_the_text_repeats_needs_no_head():
    drafter = HeadDrafter()
    drafter.head = head = Counting()
    draft = drafter.start().guess([*range(100, 150), *range(100, 120)], 3)
    assert draft.tokens == [120, 121, 122]
    assert max(draft.grades) < len(drafter.prior)
    assert not head.read
