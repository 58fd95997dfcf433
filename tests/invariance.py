"""Holds a model to one answer per request: the same logits, bit for bit, on every way to them.

As a script it tries the whole matrix on tiny models of every kind of layer (half an hour):

    python tests/invariance.py [a part of a model's name ...]

A way cuts the tokens into steps, sets other sequences beside them, asks for all logits or some,
starts from a fork or goes back; a setting is a type of weights, of the cache, a number of threads.
"""

import sys
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

import ggq
from ggq.errors import UsageError
from ggq.runtime.engine.backend import Part

STEPS = (1, 2, 3, 5, 8, 17, 0)  # tokens of a step; 0: as many as one takes
NEIGHBOURS = range(8)  # other sequences in the same steps
THREADS = (1, 2, 4)
CACHES = ("f16", "q8_0", "f32", ("q8_0", "f16"), "q4_0", ("q8_0", "q4_0"))
LONG = 300  # tokens: behind the first border of attention's chunks
N_CTX = 4096  # of all sequences together


def make_files(tiny, folder, types):
    """Write a tiny model in file types; return their paths."""
    from tinymodels import make_tiny

    make_tiny(tiny, folder)
    return [ggq.convert(folder, folder / f"{t}.gguf", type=t)[0] for t in types]


def evaluate(model, sequence, ids, size, beside=(), wanted=1.0, rng=None):
    """Evaluate ids in steps of ``size`` beside other sequences; return {position: logits}.

    ``beside``: sequences that get 1 to 6 tokens in each step, before or behind; ``wanted``: the
    share of positions whose logits are asked for.
    """
    engine, rng, found = model.engine, rng or np.random.default_rng(0), {}
    room = engine.max_tokens - 6 * len(beside)
    step = min(size or room, room)
    while len(ids):
        asked = rng.random(len(ids[:step])) < wanted
        parts = [Part(sequence, ids[:step], asked)]
        for other in beside:
            if other.length > 300:
                other.truncate(0)
            n = int(rng.integers(1, 7))
            part = Part(other, rng.integers(3, model.tokenizer.n_vocab, n), rng.random(n) < 0.5)
            parts.insert(int(rng.integers(0, len(parts) + 1)), part)
        place = next(i for i, part in enumerate(parts) if part.sequence is sequence)
        first = sum(int(part.wanted.sum()) for part in parts[:place])
        start, rows = sequence.length, engine.step(parts)
        for i, at in enumerate(np.flatnonzero(asked)):
            found[start + int(at)] = rows[first + i].copy()
        ids = ids[step:]
    return found


def truth(model, ids):
    """Return the logits of every token, evaluated alone and one by one."""
    sequence = model.engine.sequence()
    try:
        return evaluate(model, sequence, ids, 1)
    finally:
        sequence.free()


def differences(found, want):
    """Return how many rows differ in any bit."""
    return sum(row.tobytes() != want[at].tobytes() for at, row in found.items())


def try_way(model, ids, want, size, n_beside, rng):
    """Evaluate in steps beside neighbours, some logits asked for; return the rows that differ."""
    beside = [model.engine.sequence() for _ in range(n_beside)]
    sequence = model.engine.sequence()
    try:
        return differences(evaluate(model, sequence, ids, size, beside, 0.6, rng), want)
    finally:
        for each in [sequence, *beside]:
            each.free()


def try_prefix(model, ids, want, size, rng):
    """Continue forks of a prefix and a sequence that went back; return the rows that differ."""
    first = model.engine.sequence()
    evaluate(model, first, ids[: int(rng.integers(len(ids) // 2, len(ids)))], size, rng=rng)
    fork = first.fork(first.reachable(int(rng.integers(1, first.length))))
    bad = 0
    try:
        bad += differences(evaluate(model, fork, ids[fork.length :], size or 3, rng=rng), want)
        first.truncate(int(rng.integers(1, first.length)))
        bad += differences(evaluate(model, first, ids[first.length :], size or 2, rng=rng), want)
    finally:
        first.free()
        fork.free()
    return bad


def try_all(path, ids_of, caches, threads, ways, rng):
    """Try ``ways`` (step size, neighbours) with each cache and each number of threads.

    ``ids_of(model)`` gives the tokens. Returns a line for each way that gives other bits.
    """
    bad = []
    for cache in caches:
        want: dict[int, np.ndarray] = {}
        for n_threads in threads:
            with ggq.load(path, n_ctx=N_CTX, threads=n_threads, cache_type=cache) as model:
                ids = ids_of(model)
                want = want or truth(model, ids)
                for size, n_beside in ways:
                    n = try_way(model, ids, want, size, n_beside, rng)
                    n += try_prefix(model, ids, want, size, rng)
                    if n:
                        name = f"{Path(path).parent.name} {Path(path).stem} cache {cache}"
                        way = f"steps of {size or 'all'}, {n_beside} beside"
                        bad.append(f"{name}, {n_threads} threads, {way}: {n} rows differ")
    return bad


def caches_of(path):
    """Return the types of cache that a model can have: some take heads of whole 32 columns."""
    fit = []
    for cache in CACHES:
        with suppress(UsageError), ggq.load(path, n_ctx=64, cache_type=cache) as model:
            model.engine.sequence().free()  # the cache is made with the engine
            fit.append(cache)
    return fit


def random_ids(n):
    """Return what gives a model ``n`` seeded tokens."""
    return lambda model: np.random.default_rng(5).integers(3, model.tokenizer.n_vocab, n)


def main():
    """Try the whole matrix; write what differs and how much was tried."""
    from tinymodels import TINY

    names = sys.argv[1:] or [""]
    rng, failed = np.random.default_rng(1), 0
    ways = [(size, n) for size in STEPS for n in NEIGHBOURS]
    for tiny in TINY:
        if not any(name in tiny.label for name in names):
            continue
        with TemporaryDirectory() as folder:
            for path in make_files(tiny, Path(folder), ("Q4_K_M", "Q4_0", "F16")):
                bad = try_all(path, random_ids(LONG), caches_of(path), THREADS, ways, rng)
                failed += len(bad)
                lines = [f"{tiny.label} {path.stem}: {len(bad)} ways differ", *bad[:9]]
                sys.stdout.write("\n  ".join(lines) + "\n")
    raise SystemExit(failed > 0)


if __name__ == "__main__":
    main()
