"""Measure a GGUF file: perplexity, and its distance from a base model."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from ggq.commands._conversion import progress_bar
from ggq.errors import UsageError, printable


@click.command()
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
@click.option("--text", type=click.Path(path_type=Path), help="Text file to score, UTF-8.")
@click.option("--against", metavar="BASE", help="HF folder or F16/F32 GGUF to compare with.")
@click.option("-c", "--ctx", "n_ctx", default=512, type=click.IntRange(4), help="Tokens a window.")
@click.option("--chunks", type=click.IntRange(1), help="Windows at most; default all.")
@click.option("-t", "--threads", type=click.IntRange(1, 1024), help="Threads.")
@click.option("--json", "as_json", is_flag=True, help="All figures as JSON.")
@click.option("--plot", type=click.Path(path_type=Path), help="KLD against size, as PNG.")
@click.option("--prompts", type=click.Path(path_type=Path), help="Answer these lines, too.")
@click.option("-n", "--max-tokens", default=64, help="Tokens of each answer.")
@click.option("-q", "--quiet", is_flag=True, help="No progress bar.")
def command(models: tuple[str, ...], **given: Any) -> None:
    """Score MODEL... on a text with llama-perplexity's protocol.

    Windows of min(512, trained context) tokens begin with BOS and their second half is scored. With
    --against the predictions are compared: mean and percentiles of the KL divergence, change of the
    true token's probability, share of equal top tokens.
    """
    if given["text"] is None and given["prompts"] is None:
        raise UsageError("give --text FILE to score, or --prompts FILE to answer")
    if given["plot"] and not given["against"]:
        raise UsageError("--plot draws the distance from a base: give --against")
    with _base(given["against"]) as base:
        results = _scored(models, base, given) if given["text"] is not None else []
        if given["prompts"] is not None:
            _answer([*([base] if base else []), *models], given)
    if given["plot"]:
        _plot(results, given["plot"])


def _scored(models: tuple[str, ...], base: str | None, given: dict[str, Any]) -> list[Any]:
    from ggq.runtime.evaluation import evaluate

    results = []
    for model in models:
        with progress_bar(given["quiet"]) as progress:
            results.append(
                evaluate(
                    model,
                    given["text"],
                    base,
                    given["n_ctx"],
                    given["chunks"],
                    given["threads"],
                    progress,
                )
            )
    if given["as_json"]:
        facts = [r.as_dict() | {"against": given["against"]} for r in results]
        click.echo(json.dumps(facts[0] if len(facts) == 1 else facts))
    else:
        click.echo("\n\n".join(report(r) for r in results))
    return results


@contextmanager
def _base(source: str | None) -> Iterator[str | None]:
    """Yield a GGUF of ``source``: an HF folder becomes a temporary one of its own float type."""
    if source is None or not Path(source).is_dir():
        yield source
        return
    from ggq.converters.convert import convert

    with tempfile.TemporaryDirectory(prefix="ggq-eval-") as folder:
        yield str(convert(source, Path(folder) / "base.gguf", type="F32")[0])


def report(result: Any) -> str:
    """Return an Evaluation as text."""
    lines = [
        f"{printable(result.model, 4096)}: {result.nbytes} bytes",
        f"windows           {result.n_windows} of {result.n_ctx} tokens, {result.n_scored} scored",
        f"perplexity        {result.ppl:.4f} +- {result.ppl_error:.4f}",
    ]
    c = result.comparison
    if c is None:
        return "\n".join(lines)
    lines += [
        f"base perplexity   {c.base_ppl:.4f} +- {c.base_ppl_error:.4f}",
        f"ln(PPL / base)    {c.ln_ratio:.6f} +- {c.ln_ratio_error:.6f}, ratio {c.ppl_ratio:.6f}, "
        f"correlation {100 * c.correlation:.2f} %",
        f"KLD mean          {c.kld:.6f} +- {c.kld_error:.6f}",
        f"KLD median        {c.kld_median:.6f}",
        f"KLD max, min      {c.kld_max:.6f}, {c.kld_min:.6f}",
        "KLD percentiles   " + _listed(c.kld_percentiles, 1, ".6f"),
        f"delta p mean      {100 * c.delta_p:.3f} +- {100 * c.delta_p_error:.3f} %",
        f"delta p RMS       {100 * c.delta_p_rms:.3f} %",
        "delta p percentiles " + _listed(c.delta_p_percentiles, 100, ".3f"),
        f"same top token    {100 * c.same_top:.3f} +- {100 * c.same_top_error:.3f} %",
    ]
    return "\n".join(lines)


def _listed(percentiles: dict[str, float], factor: float, form: str) -> str:
    return "  ".join(f"{k}%: {factor * v:{form}}" for k, v in percentiles.items())


def _answer(models: list[str], given: dict[str, Any]) -> None:
    """Print greedy answers of every model to every line of the prompts file, side by side."""
    from ggq.runtime.evaluation import read_text
    from ggq.runtime.model import load

    prompts = [line for line in read_text(given["prompts"]).splitlines() if line.strip()]
    answers: list[list[str]] = []
    for path in models:
        with load(path, threads=given["threads"]) as model:
            options = {"max_tokens": given["max_tokens"], "temperature": 0.0}
            answers.append([_reply(model, prompt, options) for prompt in prompts])
    for i, prompt in enumerate(prompts):
        click.echo(f"\n> {printable(prompt, 400)}")
        for path, texts in zip(models, answers, strict=True):
            click.echo(f"[{printable(Path(path).name)}] {printable(texts[i], 4000)}")


def _reply(model: Any, prompt: str, options: dict[str, Any]) -> str:
    if "tokenizer.chat_template" in model.gguf.metadata:
        return "".join(model.chat([{"role": "user", "content": prompt}], **options))
    return "".join(model.generate(prompt, **options))


def _plot(results: list[Any], path: Path) -> None:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UsageError("--plot: to draw, pip install 'ggq[plot]'") from None
    figure = Figure(figsize=(7, 5), layout="constrained")
    axes = figure.subplots()
    for r in results:
        size = r.nbytes / 1e6
        axes.errorbar(size, r.comparison.kld, 2 * r.comparison.kld_error, fmt="o")
        axes.annotate(Path(r.model).name, (size, r.comparison.kld), fontsize=8)
    axes.set(xlabel="file size, MB", ylabel="mean KL divergence, nats", yscale="log")
    figure.savefig(path, dpi=150)
