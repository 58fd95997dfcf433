"""Turns each step of the calibrated passes on and off: KLD on each text, seconds.

  python benchmarks/ablation.py SOURCE --types Q3_K_M --calibration CAL.txt --text A.txt \
      --text B.txt --llama-bin DIR --work DIR [--tokens 8192] [--positions 20000]

Everything but the step is the same: types, bytes, calibration tokens, scored positions. The
engine, the baseline and the error of a ratio are those of quality.py; a step earns its place
where the file without it has more than 1 times the KLD of `best`, whatever the error says.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from quality import arguments, base_file, baseline, facts, measure, ours, ratio

BEST = "+ residual target (`best`)"
# What a row of the table says, and the passes it runs; "+" joins passes.
STEPS = (
    ("no calibration", ""),
    ("imatrix, the head's too", "imatrix"),
    ("awq", "awq"),
    ("smooth", "smooth"),
    ("gptq: column loop, importance-fitted scales", "gptq:strength=0,residual=0"),
    ("+ asymmetric target", "gptq:residual=0"),
    (BEST, "gptq"),
    ("`best` and six sweeps of scales and codes", "gptq:sweeps=6"),
    ("`best` without asymmetric target", "gptq:strength=0"),
    ("`best` with both at full strength", "gptq:strength=1,residual=1"),
    ("`best` with damping 5 %", "gptq:damp=0.05"),
    ("`best` with damping 40 %", "gptq:damp=0.4"),
    ("`best` but embedding and head", "gptq:head=no"),
    ("awq, then `best`", "awq+gptq"),
    ("smooth, then `best`", "smooth+gptq"),
    ("`best`, then distill", "gptq+distill"),
)


def recipe(passes: str, tokens: int) -> str:
    """Return ``passes`` with the number of tokens given to each."""
    return "+".join(
        f"{p}{',' if ':' in p else ':'}tokens={tokens}" for p in filter(None, passes.split("+"))
    )


def table(args: argparse.Namespace, kind: str) -> list[dict]:
    """Convert, measure and return a row per step; the baseline is the first."""
    base = base_file(args)
    files = {"llama-imatrix and llama-quantize": baseline(args, base, kind)[0]}
    seconds: dict[str, float] = {}
    picked = [int(i) for i in args.steps.split(",")] if args.steps else range(len(STEPS))
    for number in picked:
        title, passes = STEPS[number]
        name = f"step{number}-{args.tokens}"
        files[title], spent = ours(args, name, recipe(passes, args.tokens), kind)
        kept = files[title].with_suffix(".seconds")
        if spent:
            kept.write_text(f"{spent:.1f}")
        seconds[title] = float(kept.read_text()) if kept.exists() else 0.0
        print(f"{title}: {seconds[title]:.0f} s", file=sys.stderr, flush=True)
    first = next(iter(files))
    found: list[dict] = [{"step": t, "seconds": seconds.get(t), "texts": {}} for t in files]
    for text in args.text:
        rows = measure(args, base, files, text)
        for line in found:
            mine = rows[line["step"]]
            found_here = {"against_baseline": ratio(mine, rows[first]), **facts(mine)}
            if BEST in rows:
                found_here["against_best"] = ratio(mine, rows[BEST])
            line["texts"][text.stem] = found_here
    return found


def as_markdown(found: list[dict]) -> str:
    """Return the table."""
    texts = list(found[0]["texts"])
    head = " | ".join(f"{t}: KLD | of the baseline's | of `best`'s | other top" for t in texts)
    lines = [f"| step | {head} | s |", "|---" * (4 * len(texts) + 2) + "|"]
    for line in found:
        cells = " | ".join(_cells(c) for c in line["texts"].values())
        spent = "" if line["seconds"] is None else f"{line['seconds']:.0f}"
        lines.append(f"| {line['step']} | {cells} | {spent} |")
    return "\n".join(lines)


def _cells(facts: dict) -> str:
    value, error = facts["against_baseline"]
    best = "{:.3f} +- {:.3f}".format(*facts["against_best"]) if "against_best" in facts else ""
    return f"{facts['kld']:.4f} | {value:.3f} +- {error:.3f} | {best} | {facts['other_top']:.2f} %"


def main() -> None:
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=8192, help="of calibration, for every step")
    parser.add_argument("--steps", help="numbers of the steps to run, from 0; default all")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    results = {}
    for kind in args.types.split(","):
        results[kind] = table(args, kind)
        print(f"{Path(args.source).name} {kind}, {args.tokens} tokens of calibration")
        print(as_markdown(results[kind]), flush=True)
    if args.json:
        args.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
