"""Compares W4A16 of ``--prepass gptq`` with other GPTQs at the same bits: layers and KLD.

  python benchmarks/serving.py SOURCE --group-size 64 --calibration CAL.txt --text HELD.txt

The textbook is GPTQ (arXiv 2210.17323) as recipes of llm-compressor use it: scales of the groups'
largest magnitudes, damp 0.01, columns by their inputs' power, static groups, the quantized model's
own inputs, towards the original weights. ``--only llm-compressor`` is llm-compressor's own recipe
(``GPTQModifier``, its defaults), where it is installed; its folder is read back by ggq. All see the
same windows of tokens. Errors are those of every linear layer's output on held-back text inside the
quantized model, over the output's own size; KLD is from the original's predictions, mean of the
windows and its standard error, then over that of the first row. Needs torch.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ggq.converters import grids
from ggq.converters.calibration.text import calibrate
from ggq.converters.calibration.weights import SourceWeights, hparams_of
from ggq.converters.conversion import Options
from ggq.converters.grids.kinds.integers import Integers
from ggq.converters.prepasses.gptq import GPTQ
from ggq.converters.prepasses.solving.solver import Solver
from ggq.converters.prepasses.solving.streams import StreamOps
from ggq.converters.serving import prepare_folder
from ggq.runtime.backends.torch.backend import logits


@contextmanager
def textbook() -> Iterator[None]:
    """Take the scales from the largest magnitudes and leave codes as the column loop has them."""
    fit, descend = Integers.fit, Solver._descend

    def largest(self: Any, x: np.ndarray, importance: Any = None) -> dict[str, np.ndarray]:
        peak = np.abs(x).reshape(len(x), -1, self.group).max(-1)
        return {"d": self.rounded_scales(peak * 2 / (self.levels - 1))}

    Integers.fit, Solver._descend = largest, lambda self, target, params, codes, *_: (params, codes)
    try:
        yield
    finally:
        Integers.fit, Solver._descend = fit, descend


def measured(job: Any, original: dict[str, Any], windows: np.ndarray) -> tuple[float, np.ndarray]:
    """Return the mean relative error of the layers' outputs, and the KLD of each window."""
    architecture, hp = hparams_of(job)
    before, after, errors = SourceWeights(original), SourceWeights(job.tensors), []

    def compare(name: str, x: Any, *_: Any) -> Any:
        if not name.startswith("blk.") or not grids.is_grid(dict(job.plan.types)[name]):
            return None
        w, q = (torch.from_numpy(one[name].dequantized()) for one in (before, after))
        made = [(t @ w.T, s @ q.T) for t, s in zip(x.teacher, x.student, strict=True)]
        missed = sum(float(((a - b) ** 2).sum()) for a, b in made)
        errors.append(missed / sum(float((a**2).sum()) for a, _ in made))
        return q

    with torch.inference_mode():
        StreamOps(before, windows, compare, lambda name: None).run(architecture, hp)
    klds = []
    for one in windows:
        p, q = (torch.from_numpy(logits(w, hp, one[None])).log_softmax(-1) for w in (before, after))
        klds.append(float((p.exp() * (p - q)).sum(-1).mean()))
    return float(np.mean(errors)), np.array(klds)


def compressed(source: str, windows: np.ndarray, group: int, out: Path) -> None:
    """Write the folder that llm-compressor's recipe makes of a Hugging Face folder."""
    from compressed_tensors.quantization import QuantizationArgs
    from datasets import Dataset
    from llmcompressor import oneshot
    from llmcompressor.modifiers.quantization import GPTQModifier
    from transformers import AutoModelForCausalLM, AutoTokenizer

    weights = QuantizationArgs(num_bits=4, type="int", symmetric=True, strategy="group",
                               group_size=group)  # fmt: skip
    groups = {"group_0": {"targets": ["Linear"], "weights": weights}}
    rows = {"input_ids": windows.tolist(), "attention_mask": np.ones_like(windows).tolist()}
    oneshot(
        model=AutoModelForCausalLM.from_pretrained(source, dtype="auto"),
        tokenizer=AutoTokenizer.from_pretrained(source),
        dataset=Dataset.from_dict(rows),
        recipe=GPTQModifier(config_groups=groups, ignore=["lm_head"]),
        max_seq_length=windows.shape[1],
        num_calibration_samples=len(windows),
        output_dir=str(out),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source")
    parser.add_argument("--group-size", type=int, default=128)
    parser.add_argument("--calibration")
    parser.add_argument("--text", required=True)
    parser.add_argument("--tokens", type=int, default=16384)
    parser.add_argument("--windows", type=int, default=8)
    parser.add_argument("--only", default="textbook,ggq", help="which, in this order")
    given = parser.parse_args()
    options = Options(group_size=given.group_size)
    same = {"calibration": given.calibration, "tokens": given.tokens, "head": False}
    recipes = {
        "textbook": GPTQ(strength=0, residual=0, damp=0.01, ridge=0, **same),
        "ggq": GPTQ(**same),
    }
    kind = grids.find("W4A16")
    assert kind is not None
    first = None
    for name in given.only.split(","):
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
            out = Path(folder) / "unwritten"  # finished blocks are kept beside it
            job = stack.enter_context(prepare_folder(given.source, out, kind, None, options))
            original = dict(job.tensors)
            held = calibrate(job, given.text, 512, given.windows, spread=True, starts=True)
            if name == "llm-compressor":
                made, tokens = Path(folder) / "made", recipes["ggq"].windows(job).windows
                compressed(given.source, tokens, given.group_size, made)
                job = stack.enter_context(prepare_folder(made, out, kind, None, options))
            elif name == "textbook":
                with textbook():
                    recipes[name](job)
            else:
                recipes[name](job)
            took = time.monotonic() - began
            error, klds = measured(job, original, held.windows)
        first = klds if first is None else first
        ratio = klds.mean() / first.mean()
        told = f"{name}: layers {error:.5f}, KLD {klds.mean():.5f} +- {spread(klds):.5f}"
        print(f"{told}, {ratio:.3f} of the first; made in {took:.0f} s", flush=True)


def spread(values: np.ndarray) -> float:
    """Return the standard error of the mean."""
    return float(values.std() / len(values) ** 0.5)


if __name__ == "__main__":
    main()
