"""Convert an HF folder, an HF repository or a GGUF file to a GGUF file or a folder."""

from __future__ import annotations

from typing import Any

import click

from ggq.commands import _conversion
from ggq.commands._cluster import CLUSTER, TASK_MEMORY
from ggq.commands._conversion_options import GROUPS, conversion_options, is_type
from ggq.commands._groups import GroupedCommand

SECTION = "Convert"


@click.command(cls=GroupedCommand, groups=GROUPS)
@click.argument("source")
@click.argument("out", required=False)
@conversion_options
@CLUSTER
@TASK_MEMORY
def command(source: str, out: str | None, **given: Any) -> None:
    """Convert SOURCE to the GGUF file OUT, or with --type W4A16 and the like to a folder.

    SOURCE is a Hugging Face folder (its weights may be quantized: GPTQ, AWQ, FP8, bitsandbytes,
    compressed-tensors and others), a repository id, a GGUF file or, with --base, a LoRA adapter
    (a PEFT folder). OUT is a file or a folder; without it the file goes into this folder and is
    named after the model and the type.

    Types for vLLM, SGLang and transformers: FP8, W8A8, W8A8_STATIC, W8A16, W4A16, W4A16_ASYM, GPTQ
    and AWQ (docs/export.md). Many machines share the work with --cluster (Ray) or --shard (any
    other system).
    """
    if out is not None and is_type(out):
        how = f"--type {out}, or ./{out} for a file of that name"
        raise click.UsageError(f"{out} is a file type: {how}")
    _conversion.run(source, out, **given)
