"""Steps with pictures: their rows and positions, who sees whom; kernels against the reference."""

from types import SimpleNamespace

import numpy as np
import pytest
from floats import distance, float_weights
from picturemaker import Eyes, shown

from ggq.errors import UsageError
from ggq.models.layers.attention import Attention
from ggq.models.layers.base import Memory
from ggq.models.layers.rope import Rope
from ggq.runtime.backends.reference import ReferenceOps
from ggq.runtime.cache.pictured import positions
from ggq.runtime.engine.cpu.backend import CPUBackend
from ggq.runtime.engine.engine import Engine
from ggq.runtime.pictures.gallery import Gallery

WIDTH, HEADS, HEAD = 64, 2, 32
TOLERANCE = 1e-4
ROPES = {
    "plain": Rope("neox", HEAD),
    "sections": Rope("neox", HEAD, sections=(4, 6, 6, 0)),
    "interleaved": Rope("neox", HEAD, sections=(6, 5, 5, 0), interleaved=True),
}


class OneLayer:
    """An architecture of an attention that adds a picture's second rows to its output."""

    def __init__(self, window, mutual, rope):
        self.rope = rope
        sizes = (HEADS, HEADS, HEAD, HEAD, 0.3)
        self.spec = Attention(*sizes, window=window, mutual=mutual, rope=rope)

    def forward(self, ops, hp):
        x = ops.embed("token_embd.weight")
        q, k = (ops.rope(x, HEADS, self.rope) for _ in range(2))
        x = ops.add(x, ops.attention(q, k, x, 0, self.spec))
        return ops.gather(ops.see(x, 1))


def made(window=None, mutual=False, rope=ROPES["plain"], seed=0):
    """Return an engine whose model has one attention layer, and its weights."""
    architecture = OneLayer(window, mutual, rope)
    table = np.random.default_rng(seed).standard_normal((WIDTH, WIDTH)).astype(np.float32)
    weights = float_weights({"token_embd.weight": table})
    held = Memory(HEADS, HEAD, HEAD, window=window)
    hp = SimpleNamespace(
        arch="one layer", n_vocab=WIDTH, n_embd=WIDTH, memories=[held], causal=True, deepstack=1,
        mutual=mutual, rope=rope, pictures=True,
    )  # fmt: skip
    options = {"n_ctx": 512, "n_threads": 2, "cache_type": "f32"}
    backend = CPUBackend(architecture, hp, weights, **options)
    gallery = Gallery(Eyes(WIDTH, deepstack=1), WIDTH, 1)
    engine = Engine(hp, backend, gallery=gallery)
    engine.check_generates = lambda: None  # rows of an operation stand for logits
    return engine, architecture, weights


def by_reference(architecture, weights, gallery, ids):
    """Return what the float64 back end makes of a prompt in one step."""
    ops = ReferenceOps(weights)
    blocks, at, pictured = gallery.within(ids), [], []
    for block in blocks:
        first = int(np.flatnonzero(ids == block.ids[0])[0])
        at.append(np.arange(first, first + len(block)))
        pictured.append(SimpleNamespace(start=first, block=block))
        ops.spans.append((first, first + len(block)))
    rows = np.concatenate([gallery.rows(b) for b in blocks], axis=1).astype(np.float64)
    ops.pictures = np.concatenate(at), rows
    places = positions(stands(ids, gallery), 0, len(ids)) if architecture.rope.sections else None
    return ops.step(lambda o: architecture.forward(o, None), np.maximum(ids, 0), places=places)


def stands(ids, gallery):
    from ggq.runtime.cache.pictured import Pictured

    found = [(int(np.flatnonzero(ids == b.ids[0])[0]), *b.grid) for b in gallery.within(ids)]
    return tuple(Pictured(*one) for one in found)


def prompt(gallery):
    """Return text, a picture, text, another one and text."""
    first, second = (shown(gallery, side).pieces[1].ids for side in (5, 4))
    texts = np.split(np.arange(31), [7, 18])
    return np.concatenate([texts[0], first, texts[1], second, texts[2]])


def evaluated(engine, ids):
    sequence = engine.sequence()
    return engine.evaluate(sequence, ids, every=True), sequence


@pytest.mark.parametrize("rope", ROPES)
@pytest.mark.parametrize("mutual", [False, True])
@pytest.mark.parametrize("window", [None, 70, 9])
def test_prompts_with_pictures_agree_with_the_reference(rope, mutual, window):
    engine, architecture, weights = made(window, mutual, ROPES[rope])
    gallery = engine.looker.gallery
    ids = prompt(gallery)
    want = by_reference(architecture, weights, gallery, ids)
    got, _ = evaluated(engine, ids)
    assert distance(got, want) <= TOLERANCE


@pytest.mark.parametrize("mutual", [False, True])
def test_however_a_prompt_is_cut_the_rows_are_the_same(mutual):
    engine, architecture, weights = made(None, mutual, ROPES["interleaved"])
    ids = prompt(engine.looker.gallery)
    want = by_reference(architecture, weights, engine.looker.gallery, ids)
    for step in (1, 5, 9, 30):
        sequence, rows, at = engine.sequence(), [], 0
        while at < len(ids):
            n = engine.cut(ids[at:], step)
            rows.append(engine.evaluate(sequence, ids[at : at + n], every=True))
            at += n
        assert distance(np.concatenate(rows), want) <= TOLERANCE, step
        sequence.free()


def test_forks_and_rewinds_know_where_pictures_stand():
    engine, *_ = made(None, False, ROPES["sections"])
    ids = prompt(engine.looker.gallery)
    want, sequence = evaluated(engine, ids)
    for keep in (len(ids) - 1, 40, 33, 7):
        fork = sequence.fork(keep)
        rest = engine.evaluate(fork, ids[fork.length :], every=True)
        np.testing.assert_allclose(rest, want[-len(rest) :], atol=1e-5)
        fork.free()
    sequence.truncate(40)
    rest = engine.evaluate(sequence, ids[40:], every=True)
    np.testing.assert_allclose(rest, want[40:], atol=1e-5)
    sequence.truncate(12)  # in the midst of the first picture
    with pytest.raises(UsageError, match="a picture was cut off"):
        engine.evaluate(sequence, np.array([1, 2]))
    assert len(sequence.pictured) == 1


def test_a_broken_step_leaves_no_picture_behind():
    engine, *_ = made(None, False, ROPES["sections"])
    ids, sequence = prompt(engine.looker.gallery), engine.sequence()
    whole, run = engine.backend.run, lambda parts, output: 1 / 0
    engine.backend.run = run
    with pytest.raises(ZeroDivisionError):
        engine.evaluate(sequence, ids)
    assert sequence.pictured == () and sequence.length == 0
    engine.backend.run = whole
    alone = engine.evaluate(sequence, np.arange(9))
    np.testing.assert_array_equal(alone, engine.evaluate(engine.sequence(), np.arange(9)))


def test_what_is_no_picture_is_refused():
    engine, *_ = made()
    gallery, sequence = engine.looker.gallery, engine.sequence()
    ids = shown(gallery, 5).pieces[1].ids
    with pytest.raises(UsageError, match="token ids must be in"):
        engine.evaluate(sequence, np.array([-1]))
    with pytest.raises(UsageError, match="no longer in memory"):
        engine.evaluate(sequence, np.array([-(2**63) + 5]))
    with pytest.raises(UsageError, match="in their order"):
        engine.evaluate(sequence, ids[[0, 2]])
