"""ggq and llama.cpp in turns on one file, with the same threads and tokens; prints a table.

    pip install llama-cpp-python==0.3.36
    python benchmarks/vs_llama_cpp.py MODEL.gguf [--rows decode,prefill] [-t 2] [-r 5]

llama.cpp is timed as llama-bench times it: llama_decode only, after a warm-up, its default flash
attention, ubatch 512. Figures are medians of paired runs, a ratio is the median of the pairs'. Let
nothing else run meanwhile. See docs/speed.md for what each row is and for what it needs.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
from engines import ENGINES, LlamaCpp  # noqa: E402

__all__ = ["LlamaCpp"]  # other benchmarks import it from here

PROMPT, GENERATED, PARALLEL = 512, 32, 4
BUSY_SECONDS, TURN = 30.0, 3.0  # a busy loop runs so long; each engine decodes so long at a time
Row = dict[str, Any]


@contextmanager
def opened(given: argparse.Namespace, n_ctx: int, n_seq: int = 1) -> Iterator[list[Any]]:
    """Yield both engines and tokens for them."""
    engines = [kind(given.model, given.threads, n_ctx, n_seq) for kind in ENGINES.values()]
    ids = np.random.default_rng(0).integers(300, engines[0].n_vocab, 2048).tolist()
    try:
        yield [engines, ids]
    finally:
        for engine in engines:
            engine.close()


def row(ours: list[float], theirs: list[float], unit: str, **more: Any) -> Row:
    """Return medians of both and of the pairs' ratios."""
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    ratio = statistics.median(ratios)
    found = {"ggq": statistics.median(ours), "llama.cpp": statistics.median(theirs)}
    return {**found, "ratio": ratio, "unit": unit, "ratios": ratios, **more}


def rates(engines: list[Any], work: Callable[[Any], int], repeats: int, start: int = 0) -> list:
    """Return tokens per second of both engines, in turns, each from ``start`` positions on."""
    pairs = []
    for _ in range(repeats + 1):  # the first one warms up
        pair = []
        for engine in engines:
            engine.truncate(start)
            begin = time.perf_counter()
            pair.append(work(engine) / (time.perf_counter() - begin))
        pairs.append(pair)
    return [list(side) for side in zip(*pairs[1:], strict=True)]


def decoding(ids: list[int], n: int = GENERATED) -> Callable[[Any], int]:
    """Return work that decodes ``n`` tokens one by one."""

    def work(engine: Any) -> int:
        for i in range(n):
            engine.evaluate([ids[i]])
        return n

    return work


def decode(given: argparse.Namespace) -> Row:
    with opened(given, PROMPT + GENERATED) as (engines, ids):
        return row(*rates(engines, decoding(ids), given.repeats), "tokens/s")


def prefill(given: argparse.Namespace) -> Row:
    def work(engine: Any) -> int:
        engine.evaluate(ids[:PROMPT])
        return PROMPT

    with opened(given, PROMPT + GENERATED) as (engines, ids):
        return row(*rates(engines, work, given.repeats), "tokens/s")


def parallel(given: argparse.Namespace) -> Row:
    def work(engine: Any) -> int:
        for i in range(GENERATED):
            engine.evaluate(ids[i : i + PARALLEL], list(range(PARALLEL)))
        return PARALLEL * GENERATED

    with opened(given, PARALLEL * (PROMPT + GENERATED), PARALLEL) as (engines, ids):
        return row(*rates(engines, work, given.repeats), "tokens/s")


def depth(given: argparse.Namespace) -> Row:
    """How many times longer a token takes far in: smaller is better."""
    work = decoding(list(range(300, 300 + GENERATED)))
    with opened(given, given.depth + 2 * GENERATED) as (engines, ids):
        near = rates(engines, work, given.repeats)
        for engine in engines:
            engine.truncate(0)
            engine.evaluate((ids * (given.depth // len(ids) + 1))[: given.depth])
        far = rates(engines, work, given.repeats, given.depth)
    slower = [[a / b for a, b in zip(*pair, strict=True)] for pair in zip(near, far, strict=True)]
    speed = row(*far, "tokens/s")
    return row(*slower, f"times slower at {given.depth}", tokens_per_second=speed)


def busy(given: argparse.Namespace) -> Row:
    """Decoding while a loop that never rests is pinned to a core."""
    spin = "import os\nif hasattr(os, 'sched_setaffinity'): os.sched_setaffinity(0, {0})\n"
    with opened(given, 4096) as (engines, ids):
        alone = rates(engines, decoding(ids), given.repeats)
        loop = subprocess.Popen([sys.executable, "-c", f"{spin}while True: pass"])
        try:
            pairs: list[list[float]] = []
            end = time.perf_counter() + BUSY_SECONDS
            while time.perf_counter() < end:
                pairs.append([_for_a_while(engine, ids) for engine in engines])
        finally:
            loop.kill()
            loop.wait()
    ours, theirs = (list(side) for side in zip(*pairs, strict=True))
    before = [statistics.median(side) for side in alone]
    shares = [statistics.median(s) / b for s, b in zip((ours, theirs), before, strict=True)]
    return row(ours, theirs, "tokens/s", share_of_undisturbed=shares)


def _for_a_while(engine: Any, ids: list[int]) -> float:
    engine.truncate(0)
    begin, n = time.perf_counter(), 0
    while time.perf_counter() < begin + TURN and n < len(ids):
        engine.evaluate([ids[n]])
        n += 1
    return n / (time.perf_counter() - begin)


_FRESH = """
import sys, threading, time
sys.path[:0] = {folders!r}
import engines
peak = 0
def look():
    global peak
    while True:
        with open("/proc/self/status") as status:
            peak = max(peak, int(status.read().split("RssAnon:")[1].split()[0]))
        time.sleep(0.02)
if {watch}:
    threading.Thread(target=look, daemon=True).start()
engine = engines.{kind}({path!r}, {threads}, {n_ctx})
engine.evaluate([(i * 7919) % 1000 + 300 for i in range({n_prompt})])
for i in range({n_gen}):
    engine.evaluate([300 + i])
time.sleep(0.05 if {watch} else 0)
print(peak)
"""


def fresh(given: argparse.Namespace, kind: str, n_prompt: int, n_gen: int) -> tuple[float, float]:
    """Return seconds that a new process takes, and its peak of anonymous memory in MB."""
    code = _FRESH.format(
        folders=[str(HERE), str(HERE.parent)],
        kind=ENGINES[kind].__name__,
        path=given.model,
        threads=given.threads,
        n_ctx=given.context,
        n_prompt=n_prompt,
        n_gen=n_gen,
        watch=n_gen > 0,
    )
    begin = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True)
    return time.perf_counter() - begin, int(done.stdout) / 1024


def first(given: argparse.Namespace) -> Row:
    """From process start to the first token of 32: smaller is better."""
    pairs = [[fresh(given, k, 32, 0)[0] for k in ENGINES] for _ in range(given.repeats + 1)]
    ours, theirs = (list(side) for side in zip(*pairs[1:], strict=True))
    return row(ours, theirs, "s to the first token")


def memory(given: argparse.Namespace) -> Row:
    """The peak of RssAnon with the whole context in use: smaller is better."""
    sizes = [fresh(given, k, given.context - 64, 32)[1] for k in ENGINES]
    return row([sizes[0]], [sizes[1]], f"MB of RssAnon at {given.context}")


def limits(given: argparse.Namespace) -> Row:
    """What plain reads and dot instructions reach: beside decoding's and prefill's rates."""
    from ggq.gguf import open_gguf
    from ggq.runtime.measure.roofline import dot_peak, read_bandwidth

    with open_gguf(given.model) as file:
        shard = file.shards[0].data
        mapped = read_bandwidth(given.threads, 3, shard) / 1e9
    plain, dots = read_bandwidth(given.threads) / 1e9, dot_peak(given.threads) / 1e9
    said = f"GB/s mapped; {plain:.1f} GB/s of other memory, {dots:.0f} GMAC/s"
    more = {"memory": plain, "dots": dots, "size": shard.nbytes / 1e9}
    return {"ggq": mapped, "llama.cpp": None, "ratio": None, "unit": said, **more}


def convert(given: argparse.Namespace) -> Row:
    """MODEL, of floats, to Q4_K_M by whole processes: smaller is better; bytes are compared."""
    if not given.llama_quantize:
        sys.exit("--rows convert: give --llama-quantize PATH (llama.cpp's tool)")
    outs = [Path(given.model).with_suffix(f".{name}.tmp.gguf") for name in ("ggq", "llama")]
    threads, environment = str(given.threads), dict(os.environ, PYTHONPATH=str(HERE.parent))
    ours = [sys.executable, "-m", "ggq", "quantize", given.model, str(outs[0])]
    ours += ["--type", "Q4_K_M", "-j", threads, "--force", "--quiet"]
    theirs = [given.llama_quantize, given.model, str(outs[1]), "Q4_K_M", threads]
    pairs = []
    try:
        subprocess.run(ours, check=True, capture_output=True, env=environment)  # compiles once
        for _ in range(given.repeats):
            pair = []
            for command in (ours, theirs):
                begin = time.perf_counter()
                subprocess.run(command, check=True, capture_output=True, env=environment)
                pair.append(time.perf_counter() - begin)
            pairs.append(pair)
        differing = _differing(*outs)
    finally:
        for out in outs:
            out.unlink(missing_ok=True)
    sides = (list(side) for side in zip(*pairs, strict=True))
    return row(*sides, f"s to Q4_K_M; tensors that differ: {differing}")


def _differing(ours: Path, theirs: Path) -> int:
    """Return how many tensors are not the same bytes in both files."""
    from ggq.gguf import open_gguf

    with open_gguf(ours) as a, open_gguf(theirs) as b:
        names = {*a.tensors, *b.tensors}
        return sum(
            n not in a.tensors or n not in b.tensors or not np.array_equal(a.data(n), b.data(n))
            for n in names
        )


ROWS: dict[str, Callable[[argparse.Namespace], Row]] = {
    "prefill": prefill,
    "decode": decode,
    "parallel": parallel,
    "depth": depth,
    "busy": busy,
    "first": first,
    "memory": memory,
    "limits": limits,
    "convert": convert,
}
_USUAL = "prefill,decode,parallel,limits"


def head(given: argparse.Namespace) -> list[str]:
    """Return lines that say what was compared, and where."""
    import llama_cpp

    from ggq import __version__
    from ggq.gguf import open_gguf
    from ggq.gguf.summary import type_shares
    from ggq.jit import ISA

    with open_gguf(given.model) as file:
        shares = type_shares(file)
    types = ", ".join(f"{name} {100 * s['share']:.1f} %" for name, s in shares.items())
    size = Path(given.model).stat().st_size / 1e6
    info = llama_cpp.llama_print_system_info().decode().strip()
    return [
        f"model: {Path(given.model).name}, {size:.0f} MB; share of weights: {types}",
        f"machine: {_processor()}, {os.cpu_count()} logical processors, {given.threads} threads",
        f"ggq {__version__} ({ISA}); llama.cpp of llama-cpp-python {llama_cpp.__version__}: {info}",
    ]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def line(name: str, found: Row) -> str:
    """Return a row of the table."""

    def number(value: float | None) -> str:
        return "" if value is None else f"{value:.3g}" if value < 100 else f"{value:.0f}"

    unit = found["unit"]
    if "share_of_undisturbed" in found:
        ours, theirs = found["share_of_undisturbed"]
        unit += f"; of its own undisturbed: {100 * ours:.0f} %, {100 * theirs:.0f} %"
    if "tokens_per_second" in found:
        far = found["tokens_per_second"]
        unit += f"; tokens/s: {far['ggq']:.1f}, {far['llama.cpp']:.1f}"
    ratio = "" if found["ratio"] is None else f"{found['ratio']:.2f}"
    cells = name, number(found["ggq"]), number(found["llama.cpp"]), ratio, unit
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="a GGUF file; benchmarks/synthetic.py writes some")
    said = f"of {', '.join(ROWS)}; default {_USUAL}"
    parser.add_argument("--rows", "--only", default=_USUAL, help=said)
    parser.add_argument("-t", "--threads", type=int, default=2)
    parser.add_argument("-r", "--repeats", type=int, default=5, help="pairs, after one to warm up")
    parser.add_argument("--depth", type=int, default=4096, help="positions before the row depth")
    parser.add_argument("--context", type=int, default=4096, help="positions in the row memory")
    parser.add_argument("--llama-quantize", help="path of the tool, for the row convert")
    parser.add_argument("--json", type=Path, help="write all figures there")
    given = parser.parse_args()
    names = [name for name in given.rows.split(",") if name]
    if unknown := sorted({*names} - {*ROWS}):
        parser.error(f"--rows {','.join(unknown)}: {said}")
    try:
        print("\n\n".join(head(given)))
    except ImportError:
        sys.exit("llama.cpp is missing: pip install llama-cpp-python==0.3.36")
    print("\n| | ggq | llama.cpp | ggq / llama.cpp | |\n|---|---|---|---|---|", flush=True)
    found = {}
    for name in names:
        found[name] = ROWS[name](given)
        print(line(name, found[name]), flush=True)
    if given.json:
        given.json.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
