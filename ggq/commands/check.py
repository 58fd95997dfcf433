"""Tell whether ggq can convert and run a model, before anything is downloaded or written.

Reads config.json or a GGUF header (and, where they are there, the names and shapes of tensors);
what an architecture needs is known in ``ggq.models``.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from ggq import models
from ggq.models.base import Architecture, HParams

SECTION = "Convert"


@click.command()
@click.argument("source")
def command(source: str) -> None:
    """Say what SOURCE is and whether it is supported.

    SOURCE is a Hugging Face folder or its config.json, a GGUF file, or a repository id, of which
    only config.json is fetched. An unsupported model is an error that names the architecture, the
    nearest supported one and what is missing.
    """
    path = Path(source)
    lines = _gguf_lines(path) if path.is_file() and path.suffix != ".json" else _hf_lines(source)
    for line in lines:
        click.echo(line)


def _gguf_lines(path: Path) -> Iterator[str]:
    from ggq import quants
    from ggq.gguf import open_gguf, spec

    with open_gguf(path) as file:
        name = file.get(spec.KEY_ARCHITECTURE, type=str)
        arch = models.get(name, _bare(file.metadata, f"{name}."))
        hp = arch.hparams(file)
        arch.check(file, hp)
        types = {t.type_id for t in file.tensors.values()}
        for type_id in sorted(types):
            quants.by_id(type_id)
        yield _summary(arch, hp, "runs")
        yield f"{len(file.tensors)} tensors: {', '.join(spec.type_name(t) for t in sorted(types))}"


def _bare(metadata: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {key.removeprefix(prefix): metadata[key] for key in metadata if key.startswith(prefix)}


def _hf_lines(source: str) -> Iterator[str]:
    from ggq.converters import formats
    from ggq.converters.checkpoint.folder import read_config
    from ggq.converters.checkpoint.repository import config_file

    path = Path(source)
    if path.is_dir() and [p.name for p in path.iterdir()] != ["config.json"]:
        yield from _folder_lines(path)
        return
    file = path / "config.json" if path.is_dir() else path
    if not path.exists():
        file = config_file(source)
    config = read_config(file)
    arch = models.for_hf(config)
    hp = arch.hparams(config)
    quantized = formats.quantization(config)
    yield _summary(arch, hp, "converts and runs")
    if quantized:
        yield f"weights are quantized already ({quantized[0]}), which is decoded as it is read"
    yield "weights not looked at: no safetensors files here"


def _folder_lines(folder: Path) -> Iterator[str]:
    """Yield what ``ggq convert`` plans for a folder: what it refuses is refused here."""
    from ggq.converters.conversion import Options
    from ggq.converters.prepare import prepare

    options = Options(force=True, allow_requantize=True, check_tokenizer=False, outline=True)
    with prepare(folder, type="F16", options=options) as job:
        yield _summary(models.get(job.arch), job.hparams, "converts and runs")
        method = next((i.value for i in job.items if i.key == "ggq.source_quantization"), None)
        if method:
            yield f"weights are quantized already ({method}), which is decoded as it is read"
        left = f", {len(job.skipped)} of the checkpoint left out" if job.skipped else ""
        yield f"{len(job.tensors)} tensors{left}"
        yield from (f"warning: {warning}" for warning in job.warnings)


def _summary(arch: Architecture, hp: HParams, what: str) -> str:
    experts = f", {hp.n_expert_used} of {hp.n_expert} experts" if hp.n_expert else ""
    sizes = f"{hp.n_layer} layers of {hp.n_embd}{experts}, context {hp.n_ctx_train}"
    return f"{arch.name}: supported, {what}; {sizes}"
