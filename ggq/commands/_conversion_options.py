"""The options of ``ggq convert`` and ``ggq quantize``, and how their help groups them."""

from __future__ import annotations

from pathlib import Path

import click

from ggq.commands._types import Command

__all__ = ["GROUPS", "conversion_options", "is_type"]

PATH = click.Path(path_type=Path)
OPTIONS = (
    click.option(
        "-o",
        "--outfile",
        metavar="FILE",
        help="The argument OUT, as llama.cpp's converter takes it.",
    ),
    click.option(
        "-t",
        "--type",
        "--outtype",
        metavar="TYPE",
        help="File type: F16, Q8_0, Q4_K_M, ...; or W4A16, FP8, ...: a folder for serving engines.",
    ),
    click.option(
        "--imatrix", type=PATH, help="Importance matrix (from ggq imatrix or llama-imatrix)."
    ),
    click.option(
        "--quality",
        type=click.Choice(["fast", "good", "best"]),
        help="fast: no calibration; good: calibrated on few tokens; best: on more, the slowest.",
    ),
    click.option(
        "--prepass",
        "prepasses",
        multiple=True,
        metavar="NAME[:KEY=VALUE,...]",
        help="Run a calibration pass (awq, gptq, ...) before quantizing; repeatable, in order.",
    ),
    click.option(
        "--recipe",
        type=PATH,
        help="Take type and passes from a YAML or JSON file, or from a GGUF file made with some.",
    ),
    click.option(
        "--calibration",
        type=PATH,
        help="Calibration data: text or chats as JSON lines; default: a text that comes with ggq.",
    ),
    click.option(
        "--target-size",
        metavar="SIZE",
        help="Choose each tensor's type so that the file has at most this size.",
    ),
    click.option(
        "--target-bpw",
        type=click.FloatRange(1, 32),
        help="The same, as bits per weight of the whole file.",
    ),
    click.option(
        "--target-kld",
        type=click.FloatRange(0, min_open=True),
        help="The smallest file of at most this KL divergence (nats); makes and measures some.",
    ),
    click.option(
        "--plan",
        type=PATH,
        help="Each tensor's type, as JSON: written together with a target, else read.",
    ),
    click.option(
        "--report",
        type=PATH,
        help="Write errors, outliers and hints per tensor, as .html or .json.",
    ),
    click.option(
        "--card",
        is_flag=True,
        help="Measure the file against its original and record the result in its metadata.",
    ),
    click.option("--pure", is_flag=True, help="The base type for every tensor: no mixture."),
    click.option(
        "--tensor-type",
        "tensor_types",
        multiple=True,
        metavar="REGEX=TYPE",
        help="Type of the tensors whose name matches; repeatable, the first match counts.",
    ),
    click.option("--output-tensor-type", metavar="TYPE", help="Type of the output matrix."),
    click.option("--token-embedding-type", metavar="TYPE", help="Type of the token embedding."),
    click.option(
        "--via",
        type=click.Choice(["f16"], case_sensitive=False),
        help="Round to F16 first, for the same bytes as llama.cpp makes of an F16 GGUF.",
    ),
    click.option(
        "--allow-requantize",
        is_flag=True,
        help="Accept weights that are quantized already: quality is lost twice.",
    ),
    click.option(
        "--provenance",
        is_flag=True,
        help="Record in the metadata what the file is made of: the source's SHA-256.",
    ),
    click.option("--pre", metavar="ID", help="Pre-tokenizer, where ggq does not recognise it."),
    click.option(
        "--mtp/--no-mtp",
        default=True,
        help="Keep multi-token prediction heads, where there are any; default: keep.",
    ),
    click.option(
        "--merge-lora",
        multiple=True,
        type=PATH,
        metavar="DIR",
        help="Add a LoRA adapter (a PEFT folder) to the weights; repeatable.",
    ),
    click.option(
        "--base",
        metavar="MODEL",
        help="SOURCE is an adapter of this model: folder, repository or GGUF file.",
    ),
    click.option(
        "--mmproj",
        is_flag=False,
        flag_value="",
        metavar="[FILE]",
        help="Also write the vision part, as llama.cpp's projector file; default: mmproj-OUT.",
    ),
    click.option(
        "--mmproj-type",
        metavar="TYPE",
        help="File type of the vision part: F16 (default), BF16, F32, Q8_0.",
    ),
    click.option("--only-mmproj", is_flag=True, help="Write the vision part only."),
    click.option(
        "--group-size",
        type=click.Choice(["32", "64", "128"]),
        callback=lambda ctx, param, value: value and int(value),
        help="Weights per scale in a folder for serving engines; default: 128.",
    ),
    click.option(
        "--ignore",
        multiple=True,
        metavar="REGEX",
        help="Modules that stay unquantized in such a folder; repeatable.",
    ),
    click.option(
        "--split-max-size",
        metavar="SIZE",
        help="Split the output into files of at most this size, such as 2G or 500M.",
    ),
    click.option(
        "--shard",
        metavar="I/N",
        help="Do part I of N of the work, the others elsewhere (docs/scale.md).",
    ),
    click.option(
        "-j", "--threads", type=click.IntRange(1, 1024), help="CPU threads; default: all cores."
    ),
    click.option("--force", is_flag=True, help="Overwrite the output file."),
    click.option(
        "--dry-run", is_flag=True, help="Show the plan and the exact size; write nothing."
    ),
    click.option("--json", "as_json", is_flag=True, help="Print the plan or the result as JSON."),
    click.option("-q", "--quiet", is_flag=True, help="No progress bar."),
    click.option(
        "-v", "--verbose", is_flag=True, help="List the tensors that fall back to another type."
    ),
)


GROUPS = {
    "Output": (
        "outfile", "type", "force", "split_max_size", "dry_run", "as_json", "provenance", "quiet",
        "verbose",
    ),
    "Quality": (
        "quality", "imatrix", "calibration", "prepasses", "recipe", "report", "card",
    ),
    "Types of tensors": (
        "target_size", "target_bpw", "target_kld", "plan", "pure", "tensor_types",
        "output_tensor_type", "token_embedding_type", "via", "allow_requantize",
    ),
    "Adapters, vision and prediction heads": (
        "merge_lora", "base", "mmproj", "mmproj_type", "only_mmproj", "mtp",
    ),
    "Folders for serving engines": ("group_size", "ignore"),
    "Speed and many machines": ("threads", "shard", "cluster", "task_memory"),
}  # fmt: skip


def conversion_options(function: Command) -> Command:
    """Decorate a command function with the options both commands take."""
    for option in reversed(OPTIONS):
        function = option(function)
    return function


def is_type(word: str) -> bool:
    """Tell whether a word is a type and no file or folder of that name."""
    from ggq.quants.file_types import ALIASES, FILE_TYPES

    known = word.upper() in FILE_TYPES or word.upper() in ALIASES
    return known and not Path(word).exists()
