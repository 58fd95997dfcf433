"""What a long prompt costs after a restart, with its states on disk, against its first evaluation.

    python benchmarks/cache_disk.py model.gguf [--tokens 4000] [--rounds 3]

Every round opens the file anew twice: without the cache on disk, and with it, after another opening
has left the states of the same system prompt with another question there. A figure is the time from
the first token of the prompt to its logits, all that the cache does (identity, reading, checking,
copying) with it; the system's own page cache is warm. It ends with an error where a bit differs.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import ggq
from ggq.runtime import model as module

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("docs/convert.md", "docs/serve.md", "docs/quality.md", "docs/training.md")


def evaluate(path: str, ids: list[int], disk: str | None) -> tuple[np.ndarray, float, float, int]:
    """Return a prompt's logits, seconds for them, seconds of recalling, and recalled tokens."""
    n_ctx = len(ids) + 64
    with ggq.load(path, n_ctx=n_ctx, cache_disk=disk, draft="off") as model:
        session = model.session()
        model.engine.warm_up()
        started = time.perf_counter()
        session.recall(ids[:-1])
        recalled, known = time.perf_counter() - started, len(session.ids)
        logits = session.evaluate(ids[known:])
        return logits, time.perf_counter() - started, recalled, known


def main() -> None:
    """Measure and print a line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--tokens", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    text = "\n".join((ROOT / page).read_text("utf-8") for page in PAGES)
    with ggq.load(args.model, vocab_only=True) as model:
        system = model.tokenize(text)[: args.tokens]
        first, second = (model.tokenize(t, add_special=False) for t in ("And so?", "What of it?"))
    shares, plain, again = [], [], []
    for _ in range(args.rounds):
        with tempfile.TemporaryDirectory() as folder:
            module.user_cache_dir = lambda folder=folder: Path(folder)
            want, seconds, _, _ = evaluate(args.model, system + second, None)
            evaluate(args.model, system + first, "20G")
            found, fast, recalled, known = evaluate(args.model, system + second, "20G")
            size = sum(f.stat().st_size for f in Path(folder).rglob("*") if f.is_file())
        if found.tobytes() != want.tobytes():
            sys.exit("the logits differ")
        plain.append(seconds)
        again.append(fast)
        shares.append(fast / seconds)
    share, whole, rest = (statistics.median(each) for each in (shares, plain, again))
    print(
        f"{args.model}: {len(system)} + {len(second)} tokens {whole:.2f} s, after a restart"
        f" {rest:.2f} s = {100 * share:.1f} % ({known} tokens recalled in {recalled:.2f} s,"
        f" {size / 1e6:.0f} MB on disk)"
    )


if __name__ == "__main__":
    main()
