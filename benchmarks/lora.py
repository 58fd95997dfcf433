"""What an adapter costs: steps with and without it in turns, on one model in one process.

    python benchmarks/lora.py MODEL.gguf [--rank 16] [--pairs 60] [--type F16]

An adapter of random numbers for every weight that a layer multiplies by is made and thrown away.
Prints the median of the pairs' ratios, for one token (decoding) and for 256 (a prompt).
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

import ggq
from ggq import models
from ggq.gguf import GGUFWriter, spec
from ggq.runtime.engine.adapters import multiplied


def make_adapter(path, model, rank, kind):
    """Write an adapter of ``rank`` for all weights of the layers of an open model."""
    dtype = {"F32": np.float32, "F16": np.float16}[kind]
    rng = np.random.default_rng(1)
    with GGUFWriter(path, force=True) as writer:
        architecture = model.gguf.metadata["general.architecture"]
        said = {"general.architecture": architecture, "general.type": "adapter"}
        for key, value in {**said, "adapter.type": "lora", "adapter.lora.alpha": 1.0}.items():
            writer.add(key, value)
        made = {}
        for name in sorted(multiplied(models.get(architecture), model.hparams)):
            if name.startswith("blk.") and name in model.gguf.tensors:
                n_out, n_in = map(int, model.gguf.tensors[name].shape)
                made |= {f"{name}.lora_a": (rank, n_in), f"{name}.lora_b": (n_out, rank)}
        for name, shape in made.items():
            writer.add_tensor(name, shape, spec.TYPE_IDS[kind])
        writer.begin()
        for name, shape in made.items():
            rows = (0.01 * rng.normal(size=shape)).astype(dtype)
            writer.write(name, rows.view(np.uint8))


def ratios(engine, n_tokens, n_pairs):
    """Return the seconds with the adapter over those without, pair by pair."""
    found = []
    ids = np.arange(n_tokens) % 100 + 3
    with_and_without = [engine.sequence((scale,)) for scale in (1.0, 0.0)]
    for pair in range(n_pairs + 2):
        seconds = {}
        for i in (pair % 2, 1 - pair % 2):
            sequence = with_and_without[i]
            if sequence.length + n_tokens > 1024:
                sequence.truncate(64 if n_tokens == 1 else 0)
            started = time.perf_counter()
            engine.evaluate(sequence, ids)
            seconds[i] = time.perf_counter() - started
        found.append(seconds[0] / seconds[1])
    for sequence in with_and_without:
        sequence.free()
    return np.array(found[2:])  # the first ones record plans


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--pairs", type=int, default=60)
    parser.add_argument("--type", default="F16", choices=["F32", "F16"])
    parser.add_argument("--threads", type=int)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "lora.gguf"
        with ggq.load(given.model) as model:
            make_adapter(path, model, given.rank, given.type)
        options = {"n_ctx": 4096, "threads": given.threads, "draft": "off"}
        with ggq.load(given.model, lora=[path], **options) as model:
            for n_tokens, pairs in ((1, given.pairs), (256, max(given.pairs // 6, 3))):
                found = ratios(model.engine, n_tokens, pairs)
                low, middle, high = np.percentile(found, [25, 50, 75])
                print(
                    f"{n_tokens} tokens a step, rank {given.rank}, {given.type}: x{middle:.3f} "
                    f"(quartiles {low:.3f} to {high:.3f}, {pairs} pairs)"
                )


if __name__ == "__main__":
    main()
