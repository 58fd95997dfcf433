"""Pages of keys and values: owned, shared, copied when written to, given back."""

import numpy as np
import pytest

import ggq
from ggq.errors import UsageError
from ggq.models.layers.base import Memory
from ggq.runtime.cache.kinds import CACHE_TYPES
from ggq.runtime.cache.kvcache import KVCache, Sequence
from ggq.runtime.cache.layout import PAGE
from ggq.runtime.cache.sizes import cache_bytes
from tests.ggufmaker import make_tiny_llama

LAYERS = [Memory(2, 32, 32), Memory(1, 64, 32)]


@pytest.fixture
def cache():
    return KVCache(LAYERS, 6 * PAGE)


def pages(sequence):
    """Return the numbers of a sequence's pages."""
    return sequence.table[: -(-sequence.length // PAGE)].tolist()


def grow(sequence, n_tokens):
    sequence.reserve(n_tokens)
    sequence.advance(n_tokens)
    return sequence


def test_a_cache_larger_than_the_machine_says_what_fits(monkeypatch):
    cache = KVCache(LAYERS, 40 * PAGE)
    monkeypatch.setattr("ggq.runtime.cache.kvcache.physical_memory", lambda: cache.nbytes)
    cache.check_fits()
    fitting = KVCache(LAYERS, 25 * PAGE).nbytes
    monkeypatch.setattr("ggq.runtime.cache.kvcache.physical_memory", lambda: fitting)
    with pytest.raises(UsageError, match=f"this machine has .*: {25 * PAGE} tokens fit at most"):
        cache.check_fits()


def test_positions_take_whole_pages(cache):
    sequence = grow(Sequence(cache), 1)
    assert cache.free_positions == 5 * PAGE
    grow(sequence, PAGE - 1)
    assert cache.free_positions == 5 * PAGE
    grow(sequence, 1)
    assert cache.free_positions == 4 * PAGE
    assert len(set(pages(sequence))) == 2


def test_sequences_own_different_pages(cache):
    a, b = grow(Sequence(cache), 2 * PAGE), grow(Sequence(cache), PAGE)
    assert not set(pages(a)) & set(pages(b))


def test_a_full_context_is_an_error_and_loses_nothing(cache):
    a = grow(Sequence(cache), 4 * PAGE)
    b = grow(Sequence(cache), 2 * PAGE)
    with pytest.raises(UsageError, match=f"context of {6 * PAGE} tokens is full"):
        b.reserve(1)
    with pytest.raises(UsageError, match=f"{7 * PAGE} tokens do not fit"):
        a.reserve(3 * PAGE)
    assert (a.length, b.length, cache.free_positions) == (4 * PAGE, 2 * PAGE, 0)
    a.free()
    assert cache.free_positions == 4 * PAGE
    grow(b, 1)


def test_truncation_gives_back_what_is_beyond(cache):
    sequence = grow(Sequence(cache), 3 * PAGE)
    kept = pages(sequence)[:2]
    assert sequence.truncate(PAGE + 1) == PAGE + 1
    assert pages(sequence) == kept
    assert cache.free_positions == 4 * PAGE
    assert sequence.truncate(2 * PAGE) == PAGE + 1  # never longer than it is
    assert sequence.truncate(PAGE) == PAGE
    assert cache.free_positions == 5 * PAGE


def test_a_fork_shares_pages_until_both_are_gone(cache):
    a = grow(Sequence(cache), 2 * PAGE)
    b = a.fork(PAGE)
    assert pages(b) == pages(a)[:1]
    assert cache.is_shared(pages(b)[0])
    assert cache.free_positions == 4 * PAGE
    a.free()
    assert cache.free_positions == 5 * PAGE
    assert not cache.is_shared(pages(b)[0])
    b.free()
    assert cache.free_positions == 6 * PAGE


def test_a_shared_page_is_copied_before_it_is_written_to(cache):
    a = grow(Sequence(cache), PAGE + 3)
    first, last = pages(a)
    for array in (*cache.keys, *cache.values):
        array[last] = 7
    b = a.fork()
    grow(b, 1)
    assert pages(b)[0] == first
    assert pages(b)[1] != last
    assert pages(a) == [first, last]
    for array in (*cache.keys, *cache.values):
        assert (array[pages(b)[1]] == 7).all()
    assert not cache.is_shared(last)
    grow(a, 1)  # nobody else has it any more: written in place
    assert pages(a) == [first, last]


def test_a_fork_at_a_page_border_copies_nothing(cache):
    a = grow(Sequence(cache), PAGE)
    b = grow(a.fork(), 1)
    assert pages(b)[0] == pages(a)[0]
    assert cache.free_positions == 4 * PAGE


@pytest.mark.parametrize("kind", CACHE_TYPES)
def test_size_is_known_before(kind):
    cache = KVCache(LAYERS, 5 * PAGE - 3, kind)
    assert cache.nbytes == cache_bytes(LAYERS, 5 * PAGE - 3, kind)
    assert cache.nbytes == sum(a.nbytes for a in (*cache.keys, *cache.values))


def test_unknown_type_is_refused():
    with pytest.raises(UsageError, match="cache type q1: one of f16"):
        KVCache(LAYERS, PAGE, "q1")


def test_random_steps_never_lose_or_share_a_page_wrongly(cache):
    rng = np.random.default_rng(0)
    alive = [Sequence(cache)]
    for _ in range(400):
        sequence = alive[rng.integers(len(alive))]
        match rng.integers(4):
            case 0:
                try:
                    grow(sequence, int(rng.integers(1, 90)))
                except UsageError:
                    sequence.truncate(sequence.length)  # gives back what was reserved
            case 1:
                sequence.truncate(int(rng.integers(sequence.length + 1)))
            case 2 if len(alive) < 5:
                alive.append(sequence.fork(int(rng.integers(sequence.length + 1))))
            case 3 if len(alive) > 1:
                alive.remove(sequence)
                sequence.free()
        used = {page for s in alive for page in pages(s)}
        assert cache.free_positions == (6 - len(used)) * PAGE
    for sequence in alive:
        sequence.free()
    assert cache.free_positions == 6 * PAGE


IDS = np.random.default_rng(3).integers(3, 200, 2 * PAGE + 9)


@pytest.mark.parametrize("kind, bound", [("f16", 2e-3), ("q8_0", 3e-2)])
@pytest.mark.parametrize("n_head_kv", [1, 2])
def test_narrow_caches_are_near_the_exact_one(tmp_path, kind, bound, n_head_kv):
    """Many tokens at once, one by one, and after a fork: all within the type's rounding."""
    path = make_tiny_llama(tmp_path / "m.gguf", n_embd=128, n_head=2, n_head_kv=n_head_kv)
    with ggq.load(path, cache_type="f32") as exact, ggq.load(path, cache_type=kind) as narrow:
        want = exact.logits(IDS)
        top = np.abs(want).max()
        got = narrow.logits(IDS)
        assert 0 < np.abs(got - want).max() < bound * top
        session = narrow.session()
        session.evaluate(IDS[:PAGE])
        last = [session.evaluate([i]) for i in IDS[PAGE:]]
        assert np.abs(np.stack(last) - want[PAGE:]).max() < bound * top


WIDE = ("f16", "f32", "q8_0")
PAIRS = [(a, b) for a in WIDE for b in WIDE if a != b] + [("q8_0", "q4_0")]
BOUNDS = {"f16": 2e-3, "f32": 2e-3, "q8_0": 3e-2, "q4_0": 0.4}


@pytest.mark.parametrize("pair", PAIRS, ids="/".join)
def test_keys_and_values_may_have_different_types(tmp_path, pair):
    """As near as the coarser of both, on prompts and on single tokens."""
    path = make_tiny_llama(tmp_path / "m.gguf", n_embd=128, n_head=2, n_head_kv=1)
    ids = IDS[: PAGE + 9]
    with ggq.load(path, cache_type="f32") as exact, ggq.load(path, cache_type=pair) as mixed:
        want, cache = exact.logits(ids), mixed.engine.cache
        assert [a.dtype for a in (cache.keys[0], cache.values[0])] == [CACHE_TYPES[k] for k in pair]
        session = mixed.session()
        session.evaluate(ids[:PAGE])
        last = np.stack([session.evaluate([i]) for i in ids[PAGE:]])
        bound = max(BOUNDS[k] for k in pair) * np.abs(want).max()
        assert 0 < np.abs(mixed.logits(ids) - want).max() < bound
        assert np.abs(last - want[PAGE:]).max() < bound


def test_an_unknown_type_of_values_is_refused():
    with pytest.raises(UsageError, match="cache type q4_1: one of f16, f32, q8_0, q4_0"):
        KVCache(LAYERS, PAGE, ("f16", "q4_1"))


@pytest.mark.parametrize("group", [1, 3, 8])
@pytest.mark.parametrize("threads", [1, 3])
def test_long_sequences_are_split_and_merged(tmp_path, group, threads):
    """Far in, heads' positions are shared out in parts; a few tokens at once may cross a page."""
    path = make_tiny_llama(tmp_path / "m.gguf", n_embd=group * 32, n_head=group, n_head_kv=1)
    ids = np.random.default_rng(6).integers(3, 200, 20 * PAGE + 3)
    with ggq.load(path, cache_type="f32", threads=threads, n_ctx=24 * PAGE) as model:
        want = model.logits(ids)
        for start, sizes in ((20 * PAGE - 2, [1, 4]), (9 * PAGE - 1, [3, 2]), (4 * PAGE - 1, [1])):
            session = model.session()
            session.evaluate(ids[:start])
            for size in sizes:
                got = session.evaluate(ids[start : start + size])
                start += size
                assert np.abs(got - want[start - 1]).max() < 1e-4 * np.abs(want).max()
            session.close()


def test_q8_0_takes_34_bytes_per_32_columns():
    assert 32 * cache_bytes(LAYERS, PAGE, "q8_0") == 34 / 4 * cache_bytes(LAYERS, PAGE, "f32")


def test_q8_0_needs_whole_blocks():
    with pytest.raises(UsageError, match="heads of 80 columns, no multiple of 32"):
        KVCache([Memory(1, 80, 80)], PAGE, "q8_0")
