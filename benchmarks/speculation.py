"""What guessing saves: the same answers with it and without, in turns, of one model.

    python benchmarks/speculation.py model.gguf [--draft FILE] [--rounds 3] [--tokens 256]

Four tasks: a file of this repository written again with one name changed (edit), a summary of a
text that quotes it (quotes), free prose (prose), and the same prose drawn at temperature 1 (drawn).
Every round writes each answer twice, the order changing; a figure is the median of the rounds'
ratios of time per token after the prompt, and of processor time, which other programs on the
machine change less (with --threads 1 above all). It ends with an error where two texts differ.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

import ggq
from ggq.runtime.generation.generation import Options, generate

ROOT = Path(__file__).resolve().parent.parent
EDIT = (
    "Write this file again, complete and unchanged, but rename the function `{old}` to `{new}` "
    "everywhere. Answer with the code alone.\n\n```python\n{code}```"
)
QUOTES = (
    "Summarize the text below in five points. Quote a whole sentence of it, word for word, for "
    "every point.\n\n{text}"
)
PROSE = "Write a story about a lighthouse keeper who finds a letter in a bottle."
TASKS = ("edit", "quotes", "prose", "drawn")


def prompt(task: str) -> str:
    """Return what the model is asked."""
    if task == "edit":
        code = (ROOT / "runtime/cache/memory.py").read_text("utf-8")
        return EDIT.format(old="free_memory", new="available_bytes", code=code)
    if task == "quotes":
        text = (ROOT / "ARCHITECTURE.md").read_text("utf-8")
        return QUOTES.format(text=text[text.index("## The seams") : text.index("## What must")])
    return PROSE


def write(
    model: ggq.Model, task: str, speculation: object, n_tokens: int
) -> tuple[list, Options, float]:
    """Return the tokens of one answer, its statistics, and the processor's seconds."""
    model.speculation = speculation
    flags = {"temperature": 1.0, "seed": 1} if task == "drawn" else {"temperature": 0.0}
    ids = model.chat_ids([{"role": "user", "content": prompt(task)}])
    session, options = model.session(), Options(ignore_eos=True)
    params = model.sampling(flags)
    try:
        pieces = generate(session, model.tokenizer, ids, params, n_tokens, options=options)
        first = next(pieces)
        started = time.process_time()
        tokens = [first.token_id, *(piece.token_id for piece in pieces)]
        return tokens, options, time.process_time() - started
    finally:
        session.close()


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--draft", default="ngram")
    parser.add_argument("--draft-max", type=int, default=15)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--tasks", default=",".join(TASKS))
    args = parser.parse_args()
    options = {"draft": args.draft, "draft_max": args.draft_max, "threads": args.threads}
    with ggq.load(args.model, **options) as model:
        speculation = model.speculation
        write(model, "prose", None, 8)
        print(f"{args.model}, draft {args.draft}, {args.tokens} tokens, median of {args.rounds}")
        print("| task | tokens/s without | with | ratio | processor time | guesses | right |")
        print("|---|---|---|---|---|---|---|")
        for task in args.tasks.split(","):
            rates: dict[bool, list[float]] = {False: [], True: []}
            cpu: dict[bool, list[float]] = {False: [], True: []}
            for number in range(args.rounds):
                texts = []
                for guessing in (False, True) if number % 2 else (True, False):
                    asked = speculation if guessing else None
                    tokens, done, spent = write(model, task, asked, args.tokens)
                    cpu[guessing].append(spent)
                    texts.append(tokens)
                    rates[guessing].append(done.stats.generation_rate)
                    if guessing:
                        stats = done.stats
                if texts[0] != texts[1]:
                    sys.exit(f"{task}: the texts differ")
            ratio = statistics.median(b / a for a, b in zip(rates[False], rates[True], strict=True))
            less = statistics.median(a / b for a, b in zip(cpu[False], cpu[True], strict=True))
            plain, fast = (statistics.median(rates[key]) for key in (False, True))
            print(
                f"| {task} | {plain:.1f} | {fast:.1f} | {ratio:.2f} | {less:.2f} "
                f"| {stats.drafted_tokens} | {stats.accepted_tokens} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
