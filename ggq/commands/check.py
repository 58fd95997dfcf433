"""Tell whether ggq can convert and run a model, before anything is downloaded or written.

Reads config.json or a GGUF header (and, where they are there, the names and shapes of tensors);
what an architecture needs is known in ``ggq.models``.
"""

from collections.abc import Iterator
from pathlib import Path

import click

from ggq import models


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


def _bare(metadata, prefix: str) -> dict:
    return {key.removeprefix(prefix): metadata[key] for key in metadata if key.startswith(prefix)}


def _hf_lines(source: str) -> Iterator[str]:
    from ggq.converters import formats
    from ggq.converters.checkpoint.folder import Checkpoint, read_json
    from ggq.converters.checkpoint.repository import config_file
    from ggq.converters.checkpoint.tensors import hf_tensors

    path = Path(source)
    file = path / "config.json" if path.is_dir() else path
    if not path.exists():
        file = config_file(source)
    config = read_json(file, required=True)
    arch = models.for_hf(config)
    hp = arch.hparams(config)
    quantized = formats.quantization(config)
    yield _summary(arch, hp, "converts and runs")
    if quantized:
        yield f"weights are quantized already ({quantized[0]}), which is decoded as it is read"
    if path.is_dir() and any(path.glob("*.safetensors")):
        tensors, skipped = hf_tensors(Checkpoint(path), arch, hp)
        left = f", {len(skipped)} of the checkpoint left out" if skipped else ""
        yield f"{len(tensors)} tensors{left}"
    else:
        yield "weights not looked at: no safetensors files here"


def _summary(arch: models.Architecture, hp, what: str) -> str:
    experts = f", {hp.n_expert_used} of {hp.n_expert} experts" if hp.n_expert else ""
    sizes = f"{hp.n_layer} layers of {hp.n_embd}{experts}, context {hp.n_ctx_train}"
    return f"{arch.name}: supported, {what}; {sizes}"
