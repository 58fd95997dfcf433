"""ggq and llama.cpp in turns on one file, threads and tokens: ratios of decode, prefill, batches.

    pip install llama-cpp-python
    python benchmarks/vs_llama_cpp.py model.gguf [-t 2] [-r 5] [--depth 4096] [--json out.json]

llama.cpp is timed as llama-bench times it: llama_decode only, after a warm-up, its default flash
attention, ubatch 512. Time to first token and memory come from fresh processes. Medians of pairs.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

PROMPT, GENERATED = 512, 32


class LlamaCpp:
    """The few calls of llama.cpp's C interface that timing needs."""

    def __init__(
        self, path: str, threads: int, n_ctx: int, n_seq: int = 1, cache_f32: bool = False
    ):
        import llama_cpp

        self.api = llama_cpp
        self._quiet = llama_cpp.llama_log_callback(lambda level, text, data: None)
        llama_cpp.llama_log_set(self._quiet, ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()
        self.model = llama_cpp.llama_model_load_from_file(
            path.encode(), llama_cpp.llama_model_default_params()
        )
        params = llama_cpp.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch = n_ctx, max(2048, PROMPT), 512
        params.n_threads = params.n_threads_batch = threads
        params.n_seq_max, params.kv_unified = n_seq, True
        if cache_f32:
            params.type_k = params.type_v = 0
        self.context = llama_cpp.llama_init_from_model(self.model, params)
        self.n_vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))
        self.n_past = [0] * n_seq

    def reset(self) -> None:
        self.api.llama_memory_clear(self.api.llama_get_memory(self.context), True)
        self.n_past = [0] * len(self.n_past)

    def evaluate(
        self, ids: list[int], sequences: list[int] | None = None, every: bool = False
    ) -> None:
        """Append ids to sequence 0, or one id to each of several sequences."""
        sequences = sequences or [0] * len(ids)
        for start in range(0, len(ids), 2048):
            self._decode(ids[start : start + 2048], sequences[start : start + 2048], every)

    def last_logits(self, ids: list[int]) -> np.ndarray:
        """Append ids to sequence 0 and return the last one's logits."""
        self.evaluate(ids)
        row = self.api.llama_get_logits_ith(self.context, -1)
        return np.ctypeslib.as_array(row, (self.n_vocab,)).copy()

    def _decode(self, ids: list[int], sequences: list[int], every: bool) -> None:
        batch = self.api.llama_batch_init(len(ids), 0, 1)
        batch.n_tokens = len(ids)
        for i, (token, sequence) in enumerate(zip(ids, sequences, strict=True)):
            batch.token[i], batch.pos[i] = token, self.n_past[sequence]
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, sequence
            batch.logits[i] = int(every or i == len(ids) - 1 or len(set(sequences)) > 1)
            self.n_past[sequence] += 1
        code = self.api.llama_decode(self.context, batch)
        self.api.llama_batch_free(batch)
        if code:
            raise RuntimeError(f"llama_decode: {code}")

    def close(self) -> None:
        self.api.llama_free(self.context)
        self.api.llama_model_free(self.model)


class Ggq:
    """The same calls on ggq."""

    def __init__(self, path: str, threads: int, n_ctx: int, n_seq: int = 1):
        import ggq

        self.model = ggq.load(path, threads=threads, n_ctx=n_ctx)
        self.n_vocab = self.model.hparams.n_vocab
        self.sequences = [self.model.engine.sequence() for _ in range(n_seq)]

    def reset(self) -> None:
        for sequence in self.sequences:
            sequence.truncate(0)

    def evaluate(self, ids: list[int], sequences: list[int] | None = None) -> None:
        from ggq.runtime.engine import Part

        if sequences is None:
            self.model.engine.evaluate(self.sequences[0], ids)
            return
        parts = [
            Part(self.sequences[s], np.array([i]), np.array([True]))
            for i, s in zip(ids, sequences, strict=True)
        ]
        self.model.engine.step(parts)

    def close(self) -> None:
        self.model.close()


def _rate(work: Callable[[object, list[int]], int], engine: object, ids: list[int]) -> float:
    start = time.perf_counter()
    tokens = work(engine, ids)
    return tokens / (time.perf_counter() - start)


def _tests(depth: int) -> dict[str, tuple[int, Callable[[object, list[int]], None], Callable]]:
    """Return name -> (sequences, preparation, timed work that returns its number of tokens)."""

    def prefill(engine, ids):
        engine.evaluate(ids[:PROMPT])
        return PROMPT

    def decode(engine, ids):
        for i in range(GENERATED):
            engine.evaluate([ids[i]])
        return GENERATED

    def four(engine, ids):
        for i in range(GENERATED):
            engine.evaluate(ids[i : i + 4], [0, 1, 2, 3])
        return 4 * GENERATED

    def nothing(engine, ids):
        engine.reset()

    def fill(engine, ids):
        engine.reset()
        engine.evaluate((ids * (depth // len(ids) + 1))[:depth])

    tests = {
        "prefill": (1, nothing, prefill),
        "decode": (1, nothing, decode),
        "4 sequences": (4, nothing, four),
    }
    if depth:
        tests[f"decode at {depth}"] = (1, fill, decode)
    return tests


def compare(
    path: str, threads: int, repeats: int, depth: int, only: tuple[str, ...] = ()
) -> dict[str, dict]:
    """Return test -> medians of both engines and of the ratio pair by pair."""
    found = {}
    for name, (n_seq, prepare, work) in _tests(depth).items():
        if only and name not in only:
            continue
        n_ctx = max(depth, PROMPT) + 4 * GENERATED + 64
        engines = [kind(path, threads, n_ctx, n_seq) for kind in (Ggq, LlamaCpp)]
        ids = np.random.default_rng(0).integers(300, engines[0].n_vocab, 2048).tolist()
        pairs = []
        for number in range(repeats + 1):
            rates = []
            for engine in engines:
                prepare(engine, ids)
                rates.append(_rate(work, engine, ids))
            if number:
                pairs.append(rates)
        for engine in engines:
            engine.close()
        ours, theirs = zip(*pairs, strict=True)
        ratios = [a / b for a, b in pairs]
        found[name] = {
            "ggq": statistics.median(ours),
            "llama.cpp": statistics.median(theirs),
            "ratio": statistics.median(ratios),
            "ratios": ratios,
        }
        print(
            f"{name:16} ggq {found[name]['ggq']:8.1f}  llama.cpp {found[name]['llama.cpp']:8.1f}"
            f"  tok/s  ratio {found[name]['ratio']:.2f}",
            flush=True,
        )
    return found


def limits(path: str, threads: int) -> dict[str, dict]:
    """Return GB/s that plain reads of the mapped file and of other memory reach, and GMAC/s."""
    from ggq.gguf import open_gguf
    from ggq.runtime.roofline import dot_peak, read_bandwidth

    with open_gguf(path) as file:
        shard = file.shards[0].data
        found = {
            "file, GB/s": read_bandwidth(threads, 3, shard) / 1e9,
            "memory, GB/s": read_bandwidth(threads) / 1e9,
            "dots, GMAC/s": dot_peak(threads) / 1e9,
            "size, GB": shard.nbytes / 1e9,
        }
    print("limits           " + "  ".join(f"{k} {v:.1f}" for k, v in found.items()))
    return {"limits": found}


_FIRST_TOKEN = """
import sys, time
sys.path.insert(0, {folder!r})
import vs_llama_cpp as v
engine = v.{kind}({path!r}, {threads}, 4096)
engine.evaluate([(i * 7919) % 1000 + 300 for i in range(32)])
print(open("/proc/self/status").read().split("RssAnon:")[1].split()[0])
"""


def fresh_process(path: str, threads: int, repeats: int) -> dict[str, dict]:
    """Return seconds from process start to the first token, and RssAnon in MB, of both engines."""
    seconds, memory = {"Ggq": [], "LlamaCpp": []}, {"Ggq": [], "LlamaCpp": []}
    for _ in range(repeats + 1):
        for kind, times in seconds.items():
            folder = str(Path(__file__).parent)
            code = _FIRST_TOKEN.format(folder=folder, kind=kind, path=path, threads=threads)
            start = time.perf_counter()
            done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
            times.append(time.perf_counter() - start)
            memory[kind].append(int(done.stdout) / 1024)
    found = {}
    for name, values in (("first token, s", seconds), ("RssAnon, MB", memory)):
        ours, theirs = (statistics.median(values[kind][1:]) for kind in ("Ggq", "LlamaCpp"))
        found[name] = {"ggq": ours, "llama.cpp": theirs, "ratio": ours / theirs}
        print(f"{name:16} ggq {ours:8.2f}  llama.cpp {theirs:8.2f}  ratio {ours / theirs:.2f}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("-t", "--threads", type=int, default=2)
    parser.add_argument("-r", "--repeats", type=int, default=5)
    parser.add_argument("--depth", type=int, default=0)
    parser.add_argument("--no-start", action="store_true", help="skip the fresh processes")
    parser.add_argument("--only", default="", help="names of tests, with commas; default all")
    parser.add_argument("--json")
    given = parser.parse_args()
    only = tuple(filter(None, given.only.split(",")))
    found = compare(given.model, given.threads, given.repeats, given.depth, only)
    found |= limits(given.model, given.threads)
    if not given.no_start:
        found |= fresh_process(given.model, given.threads, given.repeats)
    if given.json:
        Path(given.json).write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
