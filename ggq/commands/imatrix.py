"""Measure an importance matrix for convert, quantize and llama-quantize."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ggq.commands._windows import CHUNKS, WINDOW
from ggq.errors import printable
from ggq.progress import progress_bar

SECTION = "Convert"


@click.command()
@click.argument("source")
@click.option(
    "--text",
    type=click.Path(path_type=Path),
    help="Calibration data: text or chats as JSON lines; default: the text that comes with ggq.",
)
@click.option(
    "-o",
    "--output",
    "out",
    type=click.Path(path_type=Path),
    default="imatrix.gguf",
    show_default=True,
    help="File to write; a name that ends in .dat: llama.cpp's older format.",
)
@WINDOW
@CHUNKS
@click.option("--process-output", is_flag=True, help="Also measure the input of the output matrix.")
@click.option(
    "--backend", type=click.Choice(["torch", "reference"]), help="What computes; default: torch."
)
@click.option("--force", is_flag=True, help="Overwrite the output file.")
@click.option("-q", "--quiet", is_flag=True, help="No progress bar.")
def command(source: str, **given: Any) -> None:
    """Measure how much each input of SOURCE's matrices matters on a text: an importance matrix.

    SOURCE is a Hugging Face folder or a GGUF file. The squares of each column's inputs are summed
    over the windows that llama-imatrix uses; convert and quantize take the file as --imatrix.
    A run that was stopped continues with the same command.
    """
    from ggq.converters.calibration.importance import collect, wants_torch
    from ggq.converters.calibration.text import calibrate
    from ggq.converters.conversion import Options
    from ggq.converters.imatrix import check_out, write_imatrix
    from ggq.converters.prepare import prepare
    from ggq.converters.prepasses.resume import Store
    from ggq.outputs import not_of

    out, head, backend = given["out"], given["process_output"], given["backend"]
    check_out(not_of(out, source, given["text"]), given["force"])
    options = Options(allow_requantize=True, force=True)
    with (
        prepare(source, out, "F32", options=options) as job,
        progress_bar(given["quiet"]) as progress,
    ):
        calibration = calibrate(job, given["text"], given["n_ctx"], given["chunks"])
        told = len(job.warnings)
        windows = calibration.windows.tobytes()
        kept = Store(job, "ggq imatrix", head, wants_torch(backend), windows)
        sums = collect(job, calibration, head, backend, progress, kept=kept)
    for warning in job.warnings[told:]:
        click.echo(f"warning: {warning}", err=True)
    chunks = calibration.windows.shape
    write_imatrix(out, sums.squares, sums.counts, calibration.dataset, chunks, given["force"])
    kept.remove()
    click.echo(printable(out, 4096))
