"""Sampler steps against plain float64 twins, and the chain's behaviour."""

import math

import numpy as np
import pytest

from ggq.errors import ModelError, UsageError
from ggq.runtime.sampling import Sampler, SamplingParams, penalties, truncation
from ggq.runtime.sampling.candidates import Candidates, draw, softmax
from ggq.runtime.sampling.mirostat import Mirostat

OFF = {"top_k": 0, "top_p": 1.0, "min_p": 0.0, "temperature": 1.0}


def logits_of(probabilities):
    with np.errstate(divide="ignore"):
        return np.log(np.array(probabilities, np.float32))


def kept(c):
    """Return {id: probability} of candidates."""
    ids = range(len(c)) if c.ids is None else c.ids.tolist()
    return dict(zip(ids, softmax(c.logits).tolist(), strict=True))


# Plain float64 twins: sorted lists of (probability, id), one loop each.


def twin_probabilities(logits):
    values = [float(x) for x in logits]
    highest = max(values)
    weights = [math.exp(x - highest) for x in values]
    total = sum(weights)
    return [w / total for w in weights]


def twin_ranked(logits):
    probabilities = twin_probabilities(logits)
    return sorted(range(len(probabilities)), key=lambda i: (-probabilities[i], i))


def twin_top_k(logits, k):
    return set(twin_ranked(logits)[:k])


def twin_top_p(logits, p):
    probabilities, chosen, total = twin_probabilities(logits), set(), 0.0
    for i in twin_ranked(logits):
        chosen.add(i)
        total += probabilities[i]
        if total >= p:
            break
    return chosen


def twin_min_p(logits, p):
    probabilities = twin_probabilities(logits)
    bound = p * max(probabilities)
    return {i for i, x in enumerate(probabilities) if x >= bound}


def twin_typical(logits, p):
    probabilities = twin_probabilities(logits)
    entropy = -sum(x * math.log(x) for x in probabilities)
    order = sorted(
        range(len(probabilities)), key=lambda i: abs(-math.log(probabilities[i]) - entropy)
    )
    chosen, total = set(), 0.0
    for i in order:
        chosen.add(i)
        total += probabilities[i]
        if total > p:
            break
    return chosen


def twin_top_n_sigma(logits, n):
    values = [float(x) for x in logits]
    mean = sum(values) / len(values)
    deviation = math.sqrt(sum((x - mean) ** 2 for x in values) / len(values))
    bound = max(values) - n * deviation
    return {i for i, x in enumerate(values) if x >= bound}


def twin_repeat_lengths(history, allowed, breakers=()):
    """For every position: does a copy of the history's end stop just before it?"""
    lengths = {}
    for end in range(1, len(history)):
        length = 0
        while (
            length < end
            and history[end - 1 - length] == history[-1 - length]
            and history[-1 - length] not in breakers
        ):
            length += 1
        token = history[end]
        if length >= allowed and token not in breakers:
            lengths[token] = max(length, lengths.get(token, 0))
    return lengths


TWINS = [
    (truncation.top_k, twin_top_k, [1, 3, 40, 300]),
    (truncation.top_p, twin_top_p, [0.01, 0.5, 0.93, 0.999]),
    (truncation.min_p, twin_min_p, [0.02, 0.3, 1.0]),
    (truncation.typical, twin_typical, [0.1, 0.5, 0.97]),
    (truncation.top_n_sigma, twin_top_n_sigma, [0.5, 1.0, 3.0]),
]


@pytest.mark.parametrize("size", [5, 700, 9001])
@pytest.mark.parametrize(
    ("step", "twin", "values"), TWINS, ids=lambda x: getattr(x, "__name__", "")
)
def test_truncation_equals_twin(step, twin, values, size):
    logits = np.random.default_rng(size).normal(scale=3, size=size).astype(np.float32)
    for value in values:
        assert set(kept(step(Candidates(logits), value))) == twin(logits, value), value


@pytest.mark.parametrize(
    ("step", "value", "expected"),
    [
        (truncation.top_k, 3, {3: 4 / 9, 2: 3 / 9, 1: 2 / 9}),
        (truncation.top_k, 0, {0: 0.1, 1: 0.2, 2: 0.3, 3: 0.4}),
        (truncation.top_p, 0.0, {3: 1.0}),
        (truncation.top_p, 0.8, {3: 4 / 9, 2: 3 / 9, 1: 2 / 9}),
        (truncation.min_p, 0.26, {3: 4 / 9, 2: 3 / 9, 1: 2 / 9}),
        (truncation.min_p, 0.51, {3: 4 / 7, 2: 3 / 7}),
        (truncation.min_p, 1.0, {3: 1.0}),
        (truncation.top_n_sigma, 1.0, {3: 4 / 7, 2: 3 / 7}),
        (truncation.top_n_sigma, 0.0, {0: 0.1, 1: 0.2, 2: 0.3, 3: 0.4}),
        (truncation.top_n_sigma, 3.0, {0: 0.1, 1: 0.2, 2: 0.3, 3: 0.4}),
    ],
)
def test_vectors_that_llama_cpp_expects(step, value, expected):
    assert kept(step(Candidates(logits_of([0.1, 0.2, 0.3, 0.4])), value)) == pytest.approx(expected)


def test_typical_may_drop_the_likeliest():
    assert set(kept(truncation.typical(Candidates(logits_of([0.97, 0.01, 0.01, 0.01])), 0.5))) == {
        0
    }
    assert 0 not in kept(truncation.typical(Candidates(logits_of([0.4, 0.2, 0.2, 0.2])), 0.5))


@pytest.mark.parametrize(("threshold", "left"), [(0.09, {3}), (0.19, {2, 3}), (0.39, {0, 1, 2, 3})])
def test_xtc_keeps_one_top_choice(threshold, left):
    c = Candidates(logits_of([0.4, 0.3, 0.2, 0.1]))
    rng = np.random.default_rng(0)
    assert set(kept(truncation.xtc(c, 1.0, threshold, rng))) == left
    assert len(truncation.xtc(c, 1.0, 0.6, rng)) == 4  # a threshold above 0.5 switches it off


@pytest.mark.parametrize(
    ("history", "settings", "expected"),
    [
        ([0], (50.0, 0, 0), [0, 0.25, 0.25, 0.25, 0.25]),
        ([0, 1, 2, 0, 0], (50.0, 0, 0), [0, 0, 0, 0.5, 0.5]),
        ([0], (1.0, 5, 5), [0.000011, 0.249997, 0.249997, 0.249997, 0.249997]),
        ([0, 1, 2, 0, 0], (1.0, 5, 5), [0, 0.000023, 0.000023, 0.499977, 0.499977]),
    ],
)
def test_penalties_that_llama_cpp_expects(history, settings, expected):
    repeat, presence, frequency = settings
    sampler = Sampler(
        SamplingParams(
            repeat_penalty=repeat, presence_penalty=presence, frequency_penalty=frequency, **OFF
        )
    )
    sampler.prime(history)
    ids, probabilities = sampler.candidates(logits_of([0.2] * 5))
    assert ids.tolist() == [0, 1, 2, 3, 4]
    assert probabilities == pytest.approx(expected, abs=1e-5)


def test_penalty_makes_positive_and_negative_logits_less_likely():
    c = Candidates(np.array([2.0, -2.0, 0.0], np.float32))
    lowered = penalties.penalise(c, {0: 3, 1: 1}, 2.0, 0.5, 0.25)
    assert lowered.logits.tolist() == [2 / 2 - 0.75 - 0.5, -2 * 2 - 0.25 - 0.5, 0.0]
    assert c.logits.tolist() == [2.0, -2.0, 0.0]  # the caller's logits are left alone


def test_penalty_window_slides():
    sampler = Sampler(SamplingParams(presence_penalty=50, repeat_last_n=2, **OFF))
    sampler.prime([0, 0, 1, 2])
    _, probabilities = sampler.candidates(np.zeros(4, np.float32))
    assert probabilities == pytest.approx([0.5, 0, 0, 0.5])


@pytest.mark.parametrize(
    ("size", "history", "multiplier", "allowed", "breakers", "expected"),
    [
        (4, [0, 1], 1.0, 2, {}, [0.25] * 4),
        (4, [0, 1, 2, 0, 1], 1.0, 2, {}, [0.296923, 0.296923, 0.109232, 0.296923]),
        (5, [0, 1, 3, 4, 0, 1], 1.0, 2, {3: ((),)}, [0.2] * 5),
        (5, [0, 1, 2, 0, 1], 2.0, 2, {}, [0.241818, 0.241818, 0.032727, 0.241818, 0.241818]),
        (5, [0, 1, 2, 3, 4, 0, 1], 1.0, 4, {}, [0.2] * 5),
    ],
)
def test_dry_that_llama_cpp_expects(size, history, multiplier, allowed, breakers, expected):
    lengths = penalties.repeat_lengths(history, allowed, 1.1, breakers)
    c = penalties.dry(Candidates(logits_of([1 / size] * size)), lengths, multiplier, 1.1, allowed)
    assert list(kept(c).values()) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("seed", range(30))
def test_dry_lengths_equal_twin(seed):
    rng = np.random.default_rng(seed)
    history = rng.integers(0, 3, size=40).tolist()
    breakers = {2: ((),)} if seed % 2 else {}
    found = penalties.repeat_lengths(history, 1 + seed % 4, 1.75, breakers)
    assert found == twin_repeat_lengths(history, 1 + seed % 4, set(breakers))


def test_dry_breaker_over_two_tokens_ends_a_repetition():
    assert penalties.repeat_lengths([5, 6, 7, 8, 5, 6], 1, 1.75, {}) == {7: 2}
    assert penalties.repeat_lengths([5, 6, 7, 8, 5, 6], 1, 1.75, {5: ((6,),)}) == {}
    assert penalties.repeat_lengths([5, 6, 7, 8, 5, 6], 1, 1.75, {8: ((),), 5: ((9,),)}) == {7: 2}


class Letters:
    """A tokenizer with one token per listed piece."""

    pieces = (b"a", b"b", b"ab", b"xa", b"cabd")
    n_vocab = len(pieces)

    def token_bytes(self, token):
        return self.pieces[token]

    def encode(self, text, add_special=True):
        return [self.pieces.index(c.encode()) for c in text]


def test_dry_breakers_become_tokens():
    found = penalties.breaker_tokens(Letters(), ("ab",))
    assert found == {0: ((1,),), 2: ((),), 3: ((1,),), 4: ((),)}


def test_temperature_and_dynamic_temperature():
    logits = logits_of([0.1, 0.2, 0.3, 0.4])
    base = dict(OFF, temperature=0.5)
    _, p = Sampler(SamplingParams(**base)).candidates(logits)
    squares = np.array([0.01, 0.04, 0.09, 0.16])
    assert p == pytest.approx(squares / squares.sum())
    entropy = -sum(x * math.log(x) for x in (0.1, 0.2, 0.3, 0.4)) / math.log(4)
    temperature = 0.2 + (0.8 - 0.2) * entropy**1.5
    powers = np.array([0.1, 0.2, 0.3, 0.4]) ** (1 / temperature)
    dynamic = SamplingParams(**base, dynatemp_range=0.3, dynatemp_exponent=1.5)
    _, p = Sampler(dynamic).candidates(logits)
    assert p == pytest.approx(powers / powers.sum(), rel=1e-5)


def test_greedy_ties_and_bias():
    logits = np.array([1, 3, 3, 2], np.float32)
    assert Sampler(SamplingParams(temperature=0)).sample(logits) == 1
    forbidden = SamplingParams(temperature=0, logit_bias={1: -math.inf, 2: -5.0})
    assert Sampler(forbidden).sample(logits) == 3
    assert Sampler(SamplingParams(temperature=1e-30, seed=1)).sample(logits) in (1, 2)


def test_seed_repeats_and_draws_follow_the_distribution():
    logits = logits_of([0.1, 0.2, 0.3, 0.4])
    first, again = (Sampler(SamplingParams(seed=7, **OFF)) for _ in range(2))
    drawn = [first.sample(logits) for _ in range(4000)]
    assert drawn == [again.sample(logits) for _ in range(4000)]
    shares = np.bincount(drawn, minlength=4) / len(drawn)
    assert shares == pytest.approx([0.1, 0.2, 0.3, 0.4], abs=0.03)
    free = Sampler(SamplingParams())
    repeat = Sampler(SamplingParams(seed=free.seed))
    assert [free.sample(logits) for _ in range(20)] == [repeat.sample(logits) for _ in range(20)]


def test_draw_uses_one_number_whatever_the_size():
    lone, control = np.random.default_rng(5), np.random.default_rng(5)
    draw(np.ones(1), lone)
    draw(np.ones(9) / 9, control)
    assert lone.random() == control.random()


def test_top_of_a_big_vocabulary_with_ties():
    logits = np.zeros(20_000, np.float32)
    logits[::100] = 1.0
    top = Candidates(logits).top(3)
    assert top.ids.tolist() == [0, 100, 200]
    assert Candidates(np.zeros(20_000, np.float32)).top(2).ids.tolist() == [0, 1]


def test_sorting_is_stable_for_every_sign():
    logits = np.random.default_rng(1).integers(-5, 6, size=5000).astype(np.float32)
    logits[::7] = -np.inf
    order = Candidates(logits).sorted().ids
    assert order.tolist() == sorted(range(5000), key=lambda i: (-logits[i], i))


def test_sequence_sets_the_order():
    logits = logits_of([0.1, 0.2, 0.3, 0.4])
    hot = dict(OFF, temperature=4.0, min_p=0.6)
    _, late = Sampler(SamplingParams(**hot, sequence="mt")).candidates(logits)
    _, early = Sampler(SamplingParams(**hot, sequence="temperature;min_p")).candidates(logits)
    assert (len(late), len(early)) == (2, 4)


@pytest.mark.parametrize("version", [1, 2])
def test_mirostat_steers_surprise_to_its_target(version):
    rng = np.random.default_rng(0)
    logits = np.log(1.0 / np.arange(1, 5001)).astype(np.float32)
    state = Mirostat(version, tau=3.0, eta=0.1, n_vocab=5000)
    probabilities = softmax(logits)
    surprise = []
    for _ in range(600):
        token = state.pick(Candidates(logits), rng)
        surprise.append(-math.log2(probabilities[token]))
    assert np.mean(surprise[100:]) < -(probabilities @ np.log2(probabilities)) - 2
    sampler = Sampler(SamplingParams(mirostat=version, seed=3))
    assert 0 <= sampler.sample(np.zeros(50, np.float32)) < 50
    assert Sampler(SamplingParams(mirostat=version)).sample(logits_of([1, 0, 0])) == 0


class OnlyEven:
    """A grammar that allows even tokens."""

    def __init__(self):
        self.masked, self.accepted = 0, []

    def allows(self, token):
        return token % 2 == 0

    def mask(self, logits):
        self.masked += 1
        return np.where(np.arange(len(logits)) % 2 == 0, logits, -np.inf)

    def accept(self, token):
        self.accepted.append(token)


@pytest.mark.parametrize("chain", [{}, {"xtc_probability": 0.5}, {"mirostat": 2}], ids=str)
def test_a_refused_token_does_not_shift_later_draws(chain):
    """The random numbers of a text's tokens depend on their number alone."""
    params = SamplingParams(seed=11, **{**OFF, **chain})
    logits = np.random.default_rng(2).normal(size=50).astype(np.float32)

    class OnlyEvenAtFirst(OnlyEven):
        left = 5

        def allows(self, token):
            self.left -= 1
            return self.left < 0 or super().allows(token)

    grammar = OnlyEvenAtFirst()
    with_grammar, free = Sampler(params, constraint=grammar), Sampler(params)
    drawn = [(with_grammar.sample(logits), free.sample(logits)) for _ in range(60)]
    assert any(a != b for a, b in drawn[:5])
    if not params.mirostat:  # its target moves with what was chosen
        assert all(a == b for a, b in drawn[5:])
    assert with_grammar._rng.random() == free._rng.random()


def test_constraint_masks_only_when_refused():
    grammar = OnlyEven()
    sampler = Sampler(SamplingParams(temperature=0), constraint=grammar)
    sampler.prime([1, 3])
    assert sampler.sample(np.array([1, 0, 5, 4], np.float32)) == 2
    assert grammar.masked == 0
    assert sampler.sample(np.array([1, 9, 5, 4], np.float32)) == 2
    sampler.accept(2)
    assert (grammar.masked, grammar.accepted) == (1, [2])


def test_broken_logits_are_named():
    with pytest.raises(ModelError, match="not finite"):
        Sampler(SamplingParams()).sample(np.array([1, np.nan], np.float32))
    with pytest.raises(UsageError, match="forbidden"):
        Sampler(SamplingParams()).sample(np.full(4, -np.inf, np.float32))
