"""Write a Hugging Face folder back from a GGUF file."""

from __future__ import annotations

from pathlib import Path

import click

from ggq.commands._reporting import JSON, tell
from ggq.progress import progress_bar

SECTION = "Convert"


@click.command()
@click.argument("model")
@click.argument("out_dir", type=click.Path(path_type=Path))
@click.option(
    "--dtype",
    type=click.Choice(["f32", "f16", "bf16"], case_sensitive=False),
    help="Type of the weights; default: as stored, f16 for quantized ones.",
)
@click.option("--force", is_flag=True, help="Write into a folder that is not empty.")
@click.option("-q", "--quiet", is_flag=True, help="No progress bar.")
@JSON
def command(
    model: str, out_dir: Path, dtype: str | None, force: bool, quiet: bool, as_json: bool
) -> None:
    """Write MODEL as a Hugging Face folder: safetensors, config, tokenizer.

    MODEL: a GGUF file, or the name of a fetched model (ggq list).
    """
    from ggq.converters.export import export
    from ggq.errors import printable
    from ggq.hub import resolve_model

    warnings: list[str] = []
    with progress_bar(quiet) as progress:
        folder = export(resolve_model(model), out_dir, dtype, force, progress, warnings.append)
    for warning in warnings:
        click.echo(f"warning: {warning}", err=True)
    facts = {"path": str(folder), "warnings": warnings}
    tell(as_json, facts, [printable(folder, 4096)])
