"""Evaluations for people: as text, as a plot of divergence against size, answers side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ggq.errors import UsageError, option, printable, reason
from ggq.extras import how_to_install
from ggq.outputs import output_file

__all__ = ["answers", "check_plot", "draw", "report", "side_by_side"]


def report(result: Any) -> str:
    """Return an `Evaluation` as text."""
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
        f"ln(PPL / base)    {c.ln_ratio:.6f} +- {c.ln_ratio_error:.6f}",
        f"PPL / base        {c.ppl_ratio:.6f}, correlation of logarithms "
        f"{100 * c.correlation:.2f} %",
        f"KLD mean          {c.kld:.6f} +- {c.kld_error:.6f}",
        f"KLD median        {c.kld_median:.6f}",
        f"KLD max, min      {c.kld_max:.6f}, {c.kld_min:.6f}",
        *_table("KLD", c.kld_percentiles, 1, ".6f"),
        f"delta p mean      {100 * c.delta_p:.3f} +- {100 * c.delta_p_error:.3f} %",
        f"delta p RMS       {100 * c.delta_p_rms:.3f} %",
        *_table("delta p, %", c.delta_p_percentiles, 100, ".3f"),
        f"same top token    {100 * c.same_top:.3f} +- {100 * c.same_top_error:.3f} %",
    ]
    return "\n".join(lines)


def _table(name: str, percentiles: dict[str, float], factor: float, form: str) -> list[str]:
    """Return percentiles as two lines, each under its own."""
    cells = [(f"{k} %", f"{factor * v:{form}}") for k, v in percentiles.items()]
    widths = [max(map(len, cell)) for cell in cells]
    heads, values = (
        "  ".join(text.rjust(w) for text, w in zip(row, widths, strict=True))
        for row in zip(*cells, strict=True)
    )
    return [f"  percentile      {heads}", f"  {name:<16}{values}"]


def answers(path: str | Path, prompts: Sequence[str], threads: int | None, n: int) -> list[str]:
    """Return a model's greedy answers of at most ``n`` tokens, as chat where it has a template."""
    from ggq.runtime.model import load

    found = []
    with load(path, threads=threads) as model:
        is_chat = "tokenizer.chat_template" in model.gguf.metadata
        for prompt in prompts:
            if is_chat:
                pieces = model.chat(
                    [{"role": "user", "content": prompt}], max_tokens=n, temperature=0.0
                )
            else:
                pieces = model.generate(prompt, max_tokens=n, temperature=0.0)
            found.append("".join(pieces))
    return found


def side_by_side(
    names: Sequence[str], prompts: Sequence[str], found: Sequence[Sequence[str]], width: int
) -> str:
    """Return a table for a terminal of ``width`` columns: one column a model, one row a prompt."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(width=width, color_system=None, highlight=False)
    with console.capture() as capture:
        for i, prompt in enumerate(prompts):
            table = Table(
                title=Text(f"> {printable(prompt, 400)}"),
                title_justify="left",
                box=box.SIMPLE,
                expand=True,
            )
            for name in names:
                table.add_column(Text(printable(name, 200)), ratio=1, overflow="fold")
            table.add_row(*(Text(_lines(texts[i])) for texts in found))
            console.print(table)
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


def _lines(text: str) -> str:
    return "\n".join(printable(line, 4000) for line in text.strip().splitlines()) or "(nothing)"


def check_plot(path: str | Path) -> None:
    """Refuse what `draw` could not write, before any work; UsageError.

    Reasons: matplotlib is not installed, no folder, a suffix that it does not write.
    """
    try:
        from matplotlib.backend_bases import FigureCanvasBase
    except ImportError:
        raise UsageError(f"{option('--plot')}: to draw, {how_to_install('plot')}") from None
    where, kinds = f"{option('--plot')} {printable(path)}", FigureCanvasBase.filetypes
    if Path(path).suffix.lower().removeprefix(".") not in kinds:
        raise UsageError(f"{where}: a name in {', '.join(f'.{kind}' for kind in sorted(kinds))}")
    if not Path(path).parent.is_dir():
        raise UsageError(f"{where}: {printable(Path(path).parent)} is no folder")
    output_file(path)


def draw(results: Sequence[Any], path: str | Path) -> None:
    """Draw the mean KLD of evaluations against their files' sizes, with two standard errors.

    UsageError where it cannot be written (see `check_plot`).
    """
    check_plot(path)
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    ordered = sorted(results, key=lambda r: r.nbytes)
    sizes = [r.nbytes / 1e6 for r in ordered]
    klds = [r.comparison.kld for r in ordered]
    errors = [min(2 * r.comparison.kld_error, 0.99 * k) for r, k in zip(ordered, klds, strict=True)]
    axes.errorbar(sizes, klds, errors, fmt="o", capsize=3, color="#2a6f97")
    middle = (sizes[0] + sizes[-1]) / 2
    for r, size, kld in zip(ordered, sizes, klds, strict=True):
        right = size > middle
        axes.annotate(
            printable(Path(r.model).stem, 60),
            (size, kld),
            xytext=(-8 if right else 8, 5),
            textcoords="offset points",
            ha="right" if right else "left",
            fontsize=9,
        )
    first = ordered[0]
    axes.set_title(f"{first.n_windows} windows of {first.n_ctx} tokens", fontsize=10)
    axes.set(xlabel="file size, MB", ylabel="mean KL divergence, nats (bars: 2 errors)")
    if min(klds) > 0:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("{x:g}")
        axes.tick_params(axis="y", which="minor", labelsize=7)
    axes.margins(0.12, 0.15)
    axes.grid(True, which="both", alpha=0.25)
    try:
        figure.savefig(path, dpi=150)
    except (OSError, ValueError) as error:
        raise UsageError(f"{option('--plot')} {printable(path)}: {reason(error)}") from None
