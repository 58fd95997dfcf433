"""What ``ggq convert`` and ``ggq quantize`` do alike: a conversion, shown as text."""

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
from ggq.errors import GGQError, UsageError, printable
from ggq.gguf.units import format_size
from ggq.made import remember
from ggq.progress import Progress, progress_bar

if TYPE_CHECKING:
    from ggq.converters.conversion import Conversion
    from ggq.converters.prepasses.base import Pass
    from ggq.converters.request import Request, Result

__all__ = ["run"]


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
