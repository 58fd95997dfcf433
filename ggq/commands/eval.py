"""Measure GGUF files: perplexity, distance from a base model, answers side by side."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import click

from ggq.commands._cache import cache_type, cached
from ggq.commands._windows import CHUNKS, WINDOW
from ggq.errors import UsageError
from ggq.progress import progress_bar

SECTION = "Measure"


@click.command()
@click.argument("models", nargs=-1, metavar="MODEL...")
@click.option(
    "-m", "--model", "more", multiple=True, metavar="MODEL", help="The argument MODEL; repeatable."
)
@click.option("--text", type=click.Path(path_type=Path), help="Text file to score, UTF-8.")
@click.option(
    "--against",
    metavar="BASE",
    help="Original to compare with: a Hugging Face folder or an F16 or F32 GGUF file.",
)
@WINDOW
@CHUNKS
@click.option(
    "-t",
    "--threads",
    type=click.IntRange(1, 1024),
    help="CPU threads; default: the physical cores.",
)
@cached("f32")
@click.option("--json", "as_json", is_flag=True, help="Print all figures as JSON.")
@click.option(
    "--plot", type=click.Path(path_type=Path), help="Plot KL divergence against size, as PNG."
)
@click.option(
    "--prompts",
    type=click.Path(path_type=Path),
    help="Also show each model's answers to the lines of this file.",
)
@click.option(
    "-n",
    "--max-tokens",
    default=64,
    type=click.IntRange(1),
    help="Most tokens of each answer; default: 64.",
)
@click.option("-q", "--quiet", is_flag=True, help="No progress bar.")
def command(models: tuple[str, ...], more: tuple[str, ...], **given: Any) -> None:
    """Score MODEL... (files or names, ggq list) on a text with llama-perplexity's protocol.

    Windows of min(512, trained context) tokens begin with BOS and their second half is scored. With
    --against the predictions are compared: mean and percentiles of the KL divergence, change of the
    true token's probability, share of equal top tokens. --prompts FILE shows each model's greedy
    answers side by side, the base's first.
    """
    models += more
    if not models:
        raise click.UsageError("Missing argument 'MODEL...'.")
    if given["text"] is None and given["prompts"] is None:
        raise UsageError("give --text FILE to score, or --prompts FILE to answer")
    if given["plot"] and not (given["against"] and given["text"]):
        raise UsageError("--plot draws the distance from a base: give --against and --text")
    from ggq.hub import resolve_model
    from ggq.runtime.measure.evaluation_text import check_plot, draw, report

    if given["plot"]:
        check_plot(given["plot"])
    models = tuple(str(resolve_model(model)) for model in models)
    with _base(given["against"], given["quiet"]) as base:
        results = _scored(models, base, given) if given["text"] is not None else []
        told = _answered(models, base, given) if given["prompts"] is not None else None
    if given["plot"]:
        draw(results, given["plot"])
    if given["as_json"]:
        facts = [r.as_dict() | {"against": given["against"]} for r in results]
        found: Any = facts[0] if len(facts) == 1 else facts
        click.echo(json.dumps(found if told is None else {"results": facts, "answers": told}))
        return
    click.echo("\n\n".join(report(r) for r in results), nl=bool(results))
    if told is not None:
        _show(told)


def _scored(models: tuple[str, ...], base: str | None, given: dict[str, Any]) -> list[Any]:
    from ggq.runtime.measure.evaluation import evaluate_all
    from ggq.runtime.model import load

    options = {name: given[name] for name in ("n_ctx", "chunks", "threads")}
    kind, sizes = cache_type(given), {n: given[n] for n in ("n_ctx", "threads")}
    with progress_bar(given["quiet"]) as progress, ExitStack() as stack:
        # the base keeps float32: what is measured is what the narrow cache costs, too
        opened = [stack.enter_context(load(m, cache_type=kind, **sizes)) for m in models]
        return evaluate_all(opened, given["text"], base, **options, progress=progress)


@contextmanager
def _base(source: str | None, quiet: bool) -> Iterator[str | None]:
    """Yield a GGUF of ``source``: an HF folder becomes a temporary one with the same weights."""
    from ggq.hub import resolve_model

    if source is None or not Path(source).is_dir():
        yield source and str(resolve_model(source))
        return
    from ggq.converters.conversion import Options
    from ggq.converters.prepare import prepare

    with tempfile.TemporaryDirectory(prefix="ggq-eval-") as folder:
        out = Path(folder) / f"{Path(source).resolve().name}.gguf"
        with prepare(source, out, "F32", options=Options(check_tokenizer=False)) as job:
            kinds = {t.type_name for t in job.tensors.values() if len(t.shape) > 1}
        kind = kinds.pop() if kinds in ({"F16"}, {"BF16"}) else "F32"
        options = Options(check_tokenizer=False)
        with prepare(source, out, kind, options=options) as job, progress_bar(quiet) as progress:
            made = job.run(progress)
        yield str(made[0])


def _answered(models: tuple[str, ...], base: str | None, given: dict[str, Any]) -> dict[str, Any]:
    """Return the prompts and every model's answers, the base's first."""
    from ggq.runtime.measure.evaluation import read_text
    from ggq.runtime.measure.evaluation_text import answers

    prompts = [line for line in read_text(given["prompts"]).splitlines() if line.strip()]
    if not prompts:
        raise UsageError(f"{given['prompts']}: no prompts, one a line")
    paths = [*([base] if base else []), *models]
    names = [*([given["against"]] if base else []), *models]
    found = [answers(p, prompts, given["threads"], given["max_tokens"]) for p in paths]
    return {"models": names, "prompts": prompts, "answers": found}


def _show(told: dict[str, Any]) -> None:
    from ggq.runtime.measure.evaluation_text import side_by_side

    names = [Path(name).name for name in told["models"]]
    width = shutil.get_terminal_size().columns
    click.echo(side_by_side(names, told["prompts"], told["answers"], max(width, 40)))
