"""What ``ggq convert`` and ``ggq quantize`` share: options, and a conversion shown as text."""

from __future__ import annotations

import json
import shlex
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ggq.commands._cluster import converted, refuse_without
from ggq.commands._types import Command
from ggq.errors import GGQError, UsageError, printable
from ggq.gguf.units import format_size
from ggq.made import remember
from ggq.progress import Progress, progress_bar

if TYPE_CHECKING:
    from ggq.converters.conversion import Conversion
    from ggq.converters.prepasses.base import Pass
    from ggq.converters.request import Request, Result

__all__ = ["conversion_options", "run"]

PATH = click.Path(path_type=Path)
OPTIONS = (
    click.option(
        "-o", "--outfile", metavar="FILE", help="The same as OUT, as llama.cpp's converter has it."
    ),
    click.option(
        "-t",
        "--type",
        "--outtype",
        metavar="TYPE",
        help="F16, Q8_0, Q4_K_M, ...; W4A16, FP8, ...: a folder for serving engines.",
    ),
    click.option("--imatrix", type=PATH, help="Importance matrix to use."),
    click.option(
        "--quality",
        type=click.Choice(["fast", "good", "best"]),
        help="fast: no calibration; good: few tokens; best: error feedback towards the original.",
    ),
    click.option(
        "--prepass",
        "prepasses",
        multiple=True,
        metavar="NAME[:KEY=VALUE,...]",
        help="Run a calibrated pass before encoding; repeatable, in order.",
    ),
    click.option(
        "--recipe",
        type=PATH,
        help="Type and passes as YAML or JSON, or those that a GGUF file was made by.",
    ),
    click.option(
        "--calibration",
        type=PATH,
        help="Text or jsonl of chats for the passes; default the text that comes with ggq.",
    ),
    click.option("--target-size", metavar="SIZE", help="Choose types for a file of at most this."),
    click.option(
        "--target-bpw",
        type=click.FloatRange(1, 32),
        help="The same by bits a weight, of the whole file.",
    ),
    click.option(
        "--target-kld",
        type=click.FloatRange(0, min_open=True),
        help="The smallest file of at most this divergence (nats): makes and measures some.",
    ),
    click.option(
        "--plan", type=PATH, help="JSON of types per tensor: written with a target, else read."
    ),
    click.option(
        "--report", type=PATH, help="Errors, outliers and hints per tensor, as .html or .json."
    ),
    click.option(
        "--card", is_flag=True, help="Measure the file against its original and say so in its keys."
    ),
    click.option("--pure", is_flag=True, help="The base type for every tensor, no mixture."),
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
        help="Round to F16 first: the bytes of an F16 GGUF quantized by llama.cpp.",
    ),
    click.option(
        "--allow-requantize", is_flag=True, help="Accept weights that are quantized already."
    ),
    click.option(
        "--provenance", is_flag=True, help="Write what the file is made of: SHA-256 of the source."
    ),
    click.option("--pre", metavar="ID", help="Pre-tokenizer, where ggq does not recognise it."),
    click.option(
        "--mtp/--no-mtp",
        default=True,
        help="Keep the heads that predict further tokens, where there are any; kept by default.",
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
        help="Write the vision part, too, as llama.cpp's projector file; default mmproj-OUT.",
    ),
    click.option(
        "--mmproj-type", metavar="TYPE", help="Of the vision part: F16 (default), BF16, F32, Q8_0."
    ),
    click.option("--only-mmproj", is_flag=True, help="The vision part instead of the model."),
    click.option(
        "--group-size",
        type=click.Choice(["32", "64", "128"]),
        callback=lambda ctx, param, value: value and int(value),
        help="Weights a scale in a folder for serving engines; default 128.",
    ),
    click.option(
        "--ignore",
        multiple=True,
        metavar="REGEX",
        help="Modules that such a folder keeps unquantized; repeatable.",
    ),
    click.option("--split-max-size", metavar="SIZE", help="Split into files, such as 2G or 500M."),
    click.option(
        "--shard",
        metavar="I/N",
        help="Be task I of N that make these files, on any machines (docs/scale.md).",
    ),
    click.option(
        "-j", "--threads", type=click.IntRange(1, 1024), help="Threads; default all cores."
    ),
    click.option("--force", is_flag=True, help="Overwrite the output file."),
    click.option(
        "--dry-run", is_flag=True, help="Show the plan and the exact size; write nothing."
    ),
    click.option("--json", "as_json", is_flag=True, help="The plan or the result as JSON."),
    click.option("-q", "--quiet", is_flag=True, help="No progress bar."),
    click.option("-v", "--verbose", is_flag=True, help="Tell of every tensor that falls back."),
)


def conversion_options(function: Command) -> Command:
    """Decorate a command function with the options both commands take."""
    for option in reversed(OPTIONS):
        function = option(function)
    return function


def run(
    source: str, out: str | None, dry_run: bool, as_json: bool, quiet: bool, **settings: Any
) -> None:
    """Convert, or with ``dry_run`` plan; print the result on stdout, progress on stderr."""
    from ggq.converters import job
    from ggq.converters.convert import make_request

    outfile, verbose = settings.pop("outfile"), settings.pop("verbose")
    cluster, memory = settings.pop("cluster", None), settings.pop("task_memory", None)
    if cluster is None:
        refuse_without({"task_memory": memory}, "task_memory")
    if outfile is not None and out not in (None, outfile):
        told = f"{printable(out)} and --outfile {printable(outfile)}"
        raise UsageError(f"the output is given twice: {told}")
    out, started = outfile if out is None else out, time.monotonic()
    if settings["mmproj"] is not None:
        settings["mmproj"] = settings["mmproj"] or True  # without a value: beside the model
    request = make_request(source, out, **settings)
    if dry_run:
        with job.planned(request, dry_run=True) as (conversion, passes):
            click.echo(
                json.dumps(conversion.summary().as_dict()) if as_json else _plan_text(conversion)
            )
            with ExitStack() as stack:
                if eyes := job.vision_beside(request, conversion, stack):
                    click.echo(_plan_text(eyes), err=as_json)
            _warn(conversion.warnings)
            if conversion.lacking_importance and not passes:
                kind = conversion.plan.file_type.name
                _warn([f"{kind} needs importance: --imatrix, or --quality good"])
        return
    shown = _shown(request, quiet, verbose)
    if cluster is None:
        result = job.run(request, shown)
    else:
        result = converted(request, shown, cluster, memory, quiet)
    _warn(result.warnings[shown.n_warnings :])
    if result.missing:
        _tell_parts(result, as_json)
        return
    is_file = result[0].is_file()  # else a folder, which other programs open
    if is_file and settings.get("base") is None and not settings["only_mmproj"]:
        remember(source, result[0])
    if as_json:
        click.echo(_as_json(result))
        return
    for path in (*result, *([result.mmproj] if result.mmproj else [])):
        click.echo(printable(path, 4096))
    if not quiet:
        _tell_written(result, time.monotonic() - started)


def _as_json(result: Result) -> str:
    files = [str(path) for path in result]
    return json.dumps({"files": files, "missing": result.missing, **result.as_dict()})


def _tell_parts(result: Result, as_json: bool) -> None:
    """Say which parts this task made and how many files others have still to make."""
    if as_json:
        click.echo(_as_json(result))
    for path in () if as_json else result:
        click.echo(printable(path, 4096))
    n = len(result.shards)
    what = f"{result.missing} of {n} files are not there yet: other tasks (--shard) make them"
    click.echo(f"{what}, and the last to end gives all their names", err=True)


def _tell_written(result: Result, seconds: float) -> None:
    """Say on stderr what was written, how large, how long it took, and what to do with it."""
    path, more = result[0], len(result) - 1
    what = f"{printable(path, 400)} and {more} more" if more else printable(path, 400)
    bits = f"{result.bits_per_weight:.1f} bits a weight"
    use = f"ggq {_use(path)}" if path.is_file() else "vllm serve"
    click.echo(
        f"wrote {what} ({format_size(result.nbytes)}, {bits}) in {seconds:.0f} s; "
        f"next: {use} {shlex.quote(printable(path, 400))}",
        err=True,
    )


def _use(path: Path) -> str:
    """Return the command that such a model is for."""
    from ggq import models
    from ggq.gguf import open_gguf
    from ggq.models.hparams import check_generates

    try:
        with open_gguf(path) as file:
            hp = models.get(str(file.metadata["general.architecture"])).hparams(file)
    except (GGQError, KeyError):  # an architecture that ggq quantizes and cannot run
        return "info"
    try:
        check_generates(hp)
    except UsageError:
        return "embed"
    return "chat"


def _shown(request: Request, quiet: bool, verbose: bool) -> Any:
    """Return the events of a conversion as they are shown on stderr."""
    from ggq.converters.request import Events

    class Shown(Events):
        n_warnings = 0  # told so far: passes may add to them

        def planned(self, conversion: Conversion, passes: Sequence[Pass]) -> None:
            _tell_plan(conversion, verbose)
            if passes and not quiet:
                _tell_estimate(conversion, passes, request.options.threads)
            self.n_warnings = len(conversion.warnings)

        def tried(self, nbytes: int, kld: float) -> None:
            click.echo(f"tried {format_size(nbytes)}: KLD {kld:.4f}", err=True)

        def progress(self) -> AbstractContextManager[Progress | None]:
            return progress_bar(quiet)

    return Shown()


def _tell_plan(conversion: Conversion, verbose: bool) -> None:
    """Say on stderr what a person should know before it starts."""
    from ggq.converters import grids

    plan = conversion.plan
    if plan.fallbacks:
        n, total = len(plan.fallbacks), len(plan.types)
        pairs = Counter(f"{wanted} to {used}" for _, wanted, used in plan.fallbacks)
        told = ", ".join(pair for pair, _ in pairs.most_common(3))
        more = "" if verbose else " (-v: which)"
        click.echo(f"{n} of {total} tensors fall back, {told}{more}", err=True)
        for name, wanted, used in plan.fallbacks if verbose else ():
            click.echo(f"  {printable(name)}: {wanted} to {used}", err=True)
    _warn(conversion.warnings)
    if conversion.skipped:
        click.echo(f"left out: {len(conversion.skipped)} tensors of other parts", err=True)
    if conversion.imatrix:
        measured = conversion.imatrix.values
        heeding = [n for n, t in plan.types if grids.kind(t).heeds_importance]
        missing = [n for n in heeding if n not in measured]
        if missing:
            click.echo(f"no importance for {len(missing)} tensors, such as {missing[0]}", err=True)


def _tell_estimate(conversion: Conversion, passes: Sequence[Pass], threads: int | None) -> None:
    """Say on stderr what the passes will take, where all of them know it."""
    from ggq.converters.prepasses.base import Prepass
    from ggq.converters.prepasses.estimates import estimate
    from ggq.runtime.cache.memory import free_memory

    found = estimate(conversion, passes, threads)
    if found is None:
        return
    names = ", ".join(one.name for one in passes if isinstance(one, Prepass))
    click.echo(f"{names}: {found}, at this machine's speed now", err=True)
    free = free_memory()
    if free is not None and found.nbytes > free:
        click.echo(f"warning: only {free / 1e9:.1f} GB of memory are free", err=True)


def _plan_text(conversion: Conversion) -> str:
    summary, lines = conversion.summary(), []
    weights: Counter[str] = Counter()
    for name, kind in summary.tensors.items():
        tensor = conversion.tensors[name]
        shape = " x ".join(str(n) for n in tensor.shape)
        lines.append(f"{printable(name):<40} {shape:>18}  {tensor.type_name} -> {kind}")
        weights[kind] += prod(tensor.shape)
    n_weights, total = summary.n_weights, len(summary.tensors)
    share = ", ".join(f"{k} {100 * n / n_weights:.1f}%" for k, n in weights.most_common())
    lines.append(f"{summary.type}: {total} tensors, weights: {share}")
    if summary.fallbacks:
        n = len(summary.fallbacks)
        lines.append(f"{n} of {total} tensors fall back: rows are no multiple of the block")
    lines += [f"{printable(path, 4096)}: {nbytes} bytes" for path, nbytes in summary.shards]
    nbytes, bits = summary.nbytes, summary.bits_per_weight
    lines.append(f"{nbytes} bytes, {nbytes / 2**20:.1f} MiB, {bits:.2f} bits a weight")
    return "\n".join(lines)


def _warn(warnings: Iterable[str]) -> None:
    for warning in warnings:
        click.echo(f"warning: {warning}", err=True)
