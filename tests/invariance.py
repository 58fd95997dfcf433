"""Holds a model to one answer per request: the same logits, bit for bit, on every way to them.

As a script it tries the matrix on tiny models and writes a table of what it tried:

    python tests/invariance.py [--all] [--types Q4_0,F16] [--wide] [part of a model's name ...]

A way cuts the tokens into steps, sets other sequences beside them, asks for all logits or some,
starts from a fork, goes back, guesses tokens and takes them back, goes on from what another process
kept on disk; a setting is a type of weights, of the cache, a number of threads. Without ``--all``
each type of cache meets each number of threads, each size of step and each number of neighbours,
but not all of them together; without a name a model of each kind of layer is tried, not all.
``--wide``: rows wide enough for blocks of 256 weights, in every type of weights.
"""

import argparse
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

import ggq
from ggq.errors import GGQError, UsageError
from ggq.runtime.cache.disk import BLOCK, DiskCache
from ggq.runtime.cache.folder import StateFolder
from ggq.runtime.engine.backend import Part

STEPS = (1, 2, 3, 5, 8, 17, 0)  # tokens of a step; 0: as many as one takes
NEIGHBOURS = range(9)  # other sequences in the same steps
THREADS = (1, 2, 4)
CACHES = ("f16", "q8_0", "f32", ("q8_0", "f16"), "q4_0", ("q8_0", "q4_0"))
KINDS = (  # of layers
    *("llama", "gemma2", "gpt-oss", "mixtral", "phi4", "cohere2", "olmo3", "bitnet", "qwen2vl"),
    *("deepseek2", "glm4moe", "bloom", "mpt clamped", "gpt2", "starcoder", "smollm3", "chatglm"),
    *("qwen35moe", "qwen3next", "lfm2", "mamba", "falcon mamba", "mamba2", "falcon h1", "jamba"),
    *("nemotron_h latent", "granite h", "gemma3n shared", "gemma4 e", "gemma4 moe", "afmoe"),
)
WIDE = {  # block types of 256 weights fit into all rows
    "hidden_size": 256,
    "intermediate_size": 512,
    "head_dim": 64,
    "num_hidden_layers": 1,
}
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


def try_guesses(model, ids, want, rng):
    """Guess tokens, some of them wrong, and take these back; return the rows that differ."""
    sequence, bad = model.engine.sequence(), 0
    try:
        while sequence.length < len(ids):
            at = sequence.length
            step = ids[at : at + int(rng.integers(1, 8))].copy()
            right = int(rng.integers(1, len(step) + 1))
            step[right:] = rng.integers(3, model.tokenizer.n_vocab, len(step) - right)
            part = Part(sequence, step, np.ones(len(step), bool), guesses=len(step) - 1)
            rows = model.engine.step([part])
            bad += differences({at + i: rows[i] for i in range(right)}, want)
            if right < len(step):  # recurrent layers go back to before the step
                sequence.truncate(at + right)
    finally:
        sequence.free()
    return bad


def keep(model, ids, folder):
    """Leave the states of ``ids`` in a folder."""
    disk = DiskCache(StateFolder(folder, 1 << 30), b"", model.engine.cache)
    sequence = model.engine.sequence()
    for at in range(0, len(ids), BLOCK):
        evaluate(model, sequence, ids[at : at + BLOCK], 0)
        disk.keep(sequence, ids, sequence.length + 1)
    disk.close()
    sequence.free()


def try_kept(model, ids, want, size, folder, rng):
    """Go on from what another model kept in a folder; return the rows that differ."""
    disk = DiskCache(StateFolder(folder, 1 << 30), b"", model.engine.cache)
    sequence = model.engine.sequence()
    try:
        n = disk.restore(sequence, ids)
        assert n == len(ids) // BLOCK * BLOCK
        return differences(evaluate(model, sequence, ids[n:], size, rng=rng), want)
    finally:
        disk.close()
        sequence.free()


def try_all(path, ids_of, caches, threads, ways, rng):
    """Try ``ways`` (step size, neighbours) with each cache and each number of threads.

    ``ids_of(model)`` gives the tokens. Returns a line for each way that gives other bits.
    """
    return [
        line
        for cache in caches
        for line in try_cache(path, ids_of, cache, [(n, ways) for n in threads], rng)
    ]


def try_cache(path, ids_of, cache, ways_of_threads, rng):
    """Try the ways that go with each number of threads; return a line for each that differs.

    What is kept on disk the first number of threads keeps.
    """
    bad, want, folder = [], {}, Path(path).parent / f"kept {Path(path).name} {cache}"
    for n_threads, ways in ways_of_threads:
        with ggq.load(path, n_ctx=N_CTX, threads=n_threads, cache_type=cache) as model:
            ids = ids_of(model)
            tried = []
            if not want:
                want = truth(model, ids)
                keep(model, ids, folder)
            for size, n_beside in ways:
                n = try_way(model, ids, want, size, n_beside, rng)
                n += try_prefix(model, ids, want, size, rng)
                tried.append((f"steps of {size or 'all'}, {n_beside} beside", n))
            tried.append(("from disk", try_kept(model, ids, want, ways[0][0], folder, rng)))
            tried.append(("guesses", try_guesses(model, ids, want, rng)))
            name = f"{Path(path).parent.name} {Path(path).stem} cache {cache}"
            bad += [f"{name}, {n_threads} threads, {way}: {n} rows differ" for way, n in tried if n]
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


def some_ways(rng):
    """Return (threads, ways) in which each size and each number of neighbours is met once."""
    n = max(len(STEPS), len(NEIGHBOURS))
    sizes, beside = (rng.permutation(np.resize(each, n)).tolist() for each in (STEPS, NEIGHBOURS))
    ways = list(zip(sizes, beside, strict=True))
    return [(threads, ways[i :: len(THREADS)]) for i, threads in enumerate(THREADS)]


def all_ways(rng):
    """Return every number of threads with every size of step and number of neighbours."""
    return [(threads, [(size, n) for size in STEPS for n in NEIGHBOURS]) for threads in THREADS]


def widened(tiny):
    """Return a tiny model whose rows take every block type."""
    return replace(tiny, label=f"{tiny.label} wide", config={**tiny.config, **WIDE})


def lengthened(tiny):
    """Return a tiny model whose table of positions, where it has one, holds all sequences."""
    from tiny.base import BASE

    config = {**BASE, **tiny.config}
    keys = [k for k in ("max_position_embeddings", "max_seq_len") if config.get(k)]
    if "rope_parameters" in config or "rope_scaling" in config:
        return tiny
    return replace(tiny, config={**tiny.config, **dict.fromkeys(keys, N_CTX)})


def block_types():
    """Return the names of all types that a whole file can be of."""
    from ggq.quants.file_types import FILE_TYPES

    return [name for name in FILE_TYPES if name not in {"F32", "BF16", "F16"}]


def try_tiny(tiny, types, ways, rng):
    """Try a tiny model in file types; write a row of the table for each, return whether all fit."""
    fine = True
    with TemporaryDirectory() as folder:
        for kind in types:
            try:
                (path,) = make_files(tiny, Path(folder), [kind])
            except GGQError as error:
                sys.stdout.write(f"| {tiny.label} | {kind} | not written: {error} |\n")
                continue
            caches, bad, n_ways = caches_of(path), [], 0
            for cache in caches:
                chosen = ways(rng)
                n_ways += sum(2 * len(each) + 2 for _, each in chosen)
                bad += try_cache(path, random_ids(LONG), cache, chosen, rng)
            names = ", ".join(c if isinstance(c, str) else "/".join(c) for c in caches)
            row = [tiny.label, kind, names, str(n_ways), str(len(bad))]
            sys.stdout.write("\n    ".join([f"| {' | '.join(row)} |", *bad[:9]]) + "\n")
            sys.stdout.flush()
            fine &= not bad
    return fine


def main():
    """Try the matrix; write a table of what was tried, and what differs."""
    from tinymodels import TINY

    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--wide", action="store_true")
    parser.add_argument("--types")
    args = parser.parse_args()
    rng, ways = np.random.default_rng(1), all_ways if args.all else some_ways
    types = block_types() if args.wide else ["Q4_0", "F16"]
    types = args.types.split(",") if args.types else types
    chosen = [
        widened(tiny) if args.wide else lengthened(tiny)
        for tiny in TINY
        if (any(name in tiny.label for name in args.names) if args.names else tiny.label in KINDS)
    ]
    sys.stdout.write(f"| model | type | caches | ways, threads {THREADS} | differ |\n")
    sys.stdout.write("|---|---|---|---|---|\n")
    fine = [try_tiny(tiny, types, ways, rng) for tiny in chosen]
    raise SystemExit(not all(fine))


if __name__ == "__main__":
    main()
