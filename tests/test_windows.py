"""Windowed layers hold only what later tokens see: memory, rewinds, forks, the scheduler."""

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from schedules import answered_like_alone, ask, drain, free_all
from tinymodels import TINY, make_tiny

import ggq
from ggq.models.layers.base import Memory
from ggq.runtime.backends.reference import ReferenceOps
from ggq.runtime.cache.kvcache import KVCache, Sequence
from ggq.runtime.cache.layout import PAGE
from ggq.runtime.cache.sizes import cache_bytes, recent_positions
from ggq.runtime.engine.weights import Weights

N_CTX, WINDOW = 2048, 24
LABELS = {"gemma3": 24, "gemma4 e": 24, "gpt-oss": 24, "mistral": 24, "phi3": 40}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Return a function that makes a tiny model with a window; cached."""
    done = {}

    def make(label):
        if label not in done:
            tiny = next(t for t in TINY if t.label == label)
            folder = tmp_path_factory.mktemp(label.replace(" ", "-"))
            make_tiny(tiny, folder)
            (done[label],) = ggq.convert(folder, folder / "model.gguf", type="F32")
        return done[label]

    return make


@pytest.fixture(scope="module", params=["gemma3", "phi3"])
def model(request, files):
    with ggq.load(files(request.param), n_ctx=N_CTX, threads=1, cache_type="f32") as model:
        yield model


@pytest.fixture(scope="module")
def ids(model):
    return np.random.default_rng(5).integers(3, model.tokenizer.n_vocab, 700)


@pytest.fixture(scope="module")
def truth(model, ids):
    """Return the logits of the reference, which keeps every position."""
    return ReferenceOps(Weights(model.gguf)).evaluate(model.hparams, ids)


def near(got, want):
    assert np.abs(got - want).max() <= 1e-4 * np.abs(want).max()


def held(sequence):
    """Return the positions that windowed layers hold, in whole pages."""
    return int(sequence._held.sum()) * PAGE


@pytest.mark.parametrize("label", LABELS)
def test_memory_is_bounded_by_the_window(label, files):
    with ggq.load(files(label), n_ctx=N_CTX, threads=1) as model:
        engine, hp = model.engine, model.hparams
        assert engine.cache.window == LABELS[label]
        assert engine.cache.windowed == [m.window is not None for m in hp.memories]
        bound = recent_positions(LABELS[label], N_CTX)
        sequence, used = engine.sequence(), set()
        for n in [300, 1, 500, *(1 for _ in range(70)), 256, 256]:
            engine.evaluate(sequence, np.full(n, 7))
            assert held(sequence) == engine.cache.recent_positions <= bound < N_CTX / 2
            used |= set(sequence.recent[sequence._held].tolist())
        assert len(used) * PAGE <= bound  # pages are used again: no others are ever touched
        layers = [i for i in range(hp.n_layer) if engine.cache.windowed[i]]
        written = [i for i in layers if engine.cache.keys[i].any()]
        assert written and written == [i for i in layers if hp.memories[i].owner is None]
        for i in written:
            touched = engine.cache.keys[i].reshape(engine.cache.n_pages, -1).any(axis=1)
            assert touched.sum() * PAGE <= bound
        sequence.free()
        assert engine.cache.recent_positions == 0


def test_logits_are_those_of_a_cache_that_keeps_everything(model, ids, truth):
    near(model.logits(ids), truth)
    session = model.session()
    at = 0
    for n in (3, 200, 1, 1, 130, 1, 64, 63, 1, 100):
        at += n
        near(session.evaluate(ids[at - n : at]), truth[at - 1])
    session.close()


@pytest.mark.parametrize("back", [1, 30, 63, 64, 100, 200, 399, 400, 450, 500])
def test_rewinds_near_and_far_evaluate_again_what_they_must(model, ids, truth, back):
    session = model.session()
    session.evaluate(ids[:200])
    for i in range(200, 210):
        session.evaluate(ids[i : i + 1])
    session.evaluate(ids[210:560])
    asked = 560 - back
    session.truncate(asked)
    left = len(session.ids)
    assert left <= asked
    assert left == asked if back <= 64 else left in (asked, 256, 0)
    got = session.evaluate(ids[left : asked + 50])
    near(got, truth[asked + 49])
    session.close()
    assert model.engine.cache.recent_positions == 0


def test_a_prompt_can_be_answered_anew(model, ids, truth):
    """Long answers are forgotten, as thinking is, without evaluating the prompt again."""
    sequence = model.engine.sequence()
    model.engine.evaluate(sequence, ids[:333])
    for i in range(333, 633):
        model.engine.evaluate(sequence, ids[i : i + 1])
    assert sequence.reachable(270) == 0 and sequence.reachable(632) == 632
    assert sequence.truncate(333) == 333
    near(model.engine.evaluate(sequence, ids[333:400]), truth[399])
    sequence.free()


def test_forks_see_what_the_first_sequence_saw(model, ids, truth):
    engine = model.engine
    one = engine.sequence()
    engine.evaluate(one, ids[:300])
    two = one.fork(270)
    engine.evaluate(one, ids[:200])
    near(engine.evaluate(two, ids[270:600]), truth[599])
    three = two.fork(590)
    one.free()
    near(engine.evaluate(three, ids[590:]), truth[-1])
    near(engine.evaluate(two, ids[600:]), truth[-1])
    assert two.fork(400).length in (0, 400)
    for sequence in (two, three):
        sequence.free()
    assert engine.cache.recent_positions == 0 and engine.cache.free_positions == N_CTX


def test_scheduled_answers_are_those_of_each_alone(model):
    prompts, s = answered_like_alone(model, shared=290, own=180, parting=4, n_ctx=640, batch=48)
    shared = prompts[-1]
    # where others parted from the first prompt is kept for those to come
    ticket, again = ask(s, shared + [9] * 30, max_tokens=8)
    drain(s)
    assert ticket.cached_tokens == 290
    assert again.text[0] == "".join(
        model.generate(shared + [9] * 30, max_tokens=8, temperature=0.0)
    )
    assert free_all(s) and model.engine.cache.recent_positions == 0


def test_random_steps_never_lose_or_share_a_page_wrongly():
    """Pages hold the tokens written to them, whatever is forked, forgotten and given back."""
    rng = np.random.default_rng(0)
    cache = KVCache([Memory(1, 1, 1), Memory(1, 1, 1, WINDOW)], 30 * PAGE, "f32")
    alive = [(Sequence(cache), [])]
    longest = 0
    for _ in range(1500):
        at = int(rng.integers(len(alive)))
        sequence, tokens = alive[at]
        match rng.integers(6):
            case 0 | 1 | 2:
                n = int(rng.choice([1, 1, 70, 256]))
                if sequence.length + n <= cache.n_ctx and cache.free_positions >= n + 2 * PAGE:
                    write(sequence, tokens, rng.integers(1, 1 << 20, n))
            case 3:
                del tokens[sequence.truncate(int(rng.integers(sequence.length + 1))) :]
            case 4 if len(alive) < 5:
                fork = sequence.fork(int(rng.integers(sequence.length + 1)))
                alive.append((fork, tokens[: fork.length]))
            case 5 if len(alive) > 1:
                sequence.free()
                del alive[at]
        for sequence, tokens in alive:
            assert len(tokens) == sequence.length
            assert held(sequence) <= recent_positions(WINDOW, cache.n_ctx)
            longest = max(longest, sequence.length)
            check(sequence, tokens)
        used = {int(p) for s, _ in alive for p in s.recent[s._held]}
        assert cache.recent_positions == len(used) * PAGE
    for sequence, _ in alive:
        sequence.free()
    assert cache.recent_positions == 0 and cache.free_positions == 30 * PAGE
    assert longest > 10 * PAGE


def write(sequence, tokens, new):
    sequence.reserve(len(new))
    for position, token in enumerate(new, sequence.length):
        place = position % PAGE
        sequence.cache.keys[0][sequence.table[position // PAGE], 0, place] = token
        sequence.cache.keys[1][sequence.recent[position // PAGE], 0, place] = token
    check(sequence, [*tokens, *new], len(tokens))
    tokens.extend(new.tolist())
    sequence.advance(len(new))


def check(sequence, tokens, length=None):
    """Compare what the next token sees (it stands at ``length``) with what was written."""
    cache, length = sequence.cache, len(tokens) if length is None else length
    for position in range(len(tokens)):
        page, place = sequence.table[position // PAGE], position % PAGE
        if position % 7 == 0:
            assert cache.keys[0][page, 0, place] == tokens[position]
        if position > length - WINDOW:
            assert sequence._held[position // PAGE]
            page = sequence.recent[position // PAGE]
            assert cache.keys[1][page, 0, place] == tokens[position]


def test_sizes_are_known_before(model):
    layers = model.hparams.memories
    cache = KVCache(layers, 5000, "f16")
    whole = cache_bytes([m._replace(window=None) for m in layers], 5000)
    assert cache.nbytes == cache_bytes(layers, 5000) < whole
    window = max(m.window or 0 for m in layers)
    assert cache.nbytes >= whole * recent_positions(window, 5000) // 5056
    assert KVCache(layers, 24).nbytes == cache_bytes(layers, 24)
    assert not KVCache(layers, 24).window  # everything is in sight


def test_pages_on_a_device_grow_with_the_sequences():
    torch = pytest.importorskip("torch")
    from ggq.runtime.engine.torch.ops import DeviceCache

    layers = [Memory(1, 2, 2), Memory(1, 2, 2, WINDOW)]
    cache = DeviceCache(layers, 160 * PAGE, "f32", torch.device("cpu"))
    first = recent_positions(WINDOW, 160 * PAGE) // PAGE
    assert [len(pages) for pages in cache.keys] == [160, first]
    sequences = [Sequence(cache) for _ in range(12)]
    for number, sequence in enumerate(sequences, 1):
        for _ in range(4):
            sequence.reserve(200)
            for i in np.flatnonzero(sequence._held):
                cache.values[1][sequence.recent[i]] = number
            sequence.advance(200)
    assert 160 > len(cache.keys[1]) == len(cache.values[1]) > first
    for number, sequence in enumerate(sequences, 1):
        pages = cache.values[1][sequence.recent[sequence._held]]
        assert len(pages) and (pages == number).all()
