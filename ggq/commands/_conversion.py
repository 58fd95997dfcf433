"""What ``ggq convert`` and ``ggq quantize`` share: options, the plan as text."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable
from math import prod
from pathlib import Path
from typing import Any

import click

from ggq.commands._progress import progress_bar
from ggq.errors import UsageError, printable
from ggq.gguf.units import parse_size

OPTIONS = (
    click.option("-t", "--type", "file_type", metavar="TYPE", help="F16, Q8_0, Q4_K_M, ..."),
    click.option("--imatrix", type=click.Path(path_type=Path), help="Importance matrix to use."),
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
        "recipe_file",
        type=click.Path(path_type=Path),
        help="Type and passes as YAML or JSON, or those that a GGUF file was made by.",
    ),
    click.option(
        "--calibration",
        type=click.Path(path_type=Path),
        help="Text or jsonl of chats for the passes; default the text that comes with ggq.",
    ),
    click.option("--target-size", metavar="SIZE", help="Choose types for a file of at most this."),
    click.option(
        "--target-bpw",
        type=click.FloatRange(1, 32),
        help="The same by bits a weight, of the whole file.",
    ),
    click.option(
        "--plan",
        "plan_file",
        type=click.Path(path_type=Path),
        help="JSON of types per tensor: written with a target, else read.",
    ),
    click.option(
        "--report",
        type=click.Path(path_type=Path),
        help="Errors, outliers and hints per tensor, as .html or .json.",
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
    click.option("--pre", metavar="ID", help="Pre-tokenizer, where ggq does not recognise it."),
    click.option("--split-max-size", metavar="SIZE", help="Split into files, such as 2G or 500M."),
    click.option(
        "-j", "--threads", type=click.IntRange(1, 1024), help="Threads; default all cores."
    ),
    click.option("--force", is_flag=True, help="Overwrite the output file."),
    click.option(
        "--dry-run", is_flag=True, help="Show the plan and the exact size; write nothing."
    ),
    click.option("--json", "as_json", is_flag=True, help="The plan or the result as JSON."),
    click.option("-q", "--quiet", is_flag=True, help="No progress bar."),
)


def conversion_options(function: Callable) -> Callable:
    """Decorate a command function with the options both commands take."""
    for option in reversed(OPTIONS):
        function = option(function)
    return function


def run(source: str, out: str | None, given: dict[str, Any]) -> None:
    """Plan, and unless --dry-run convert; print the result on stdout, progress on stderr."""
    from ggq.converters.convert import prepare

    if given["report"]:
        from ggq.converters.report.report import report_path

        report_path(given["report"])
    given["recipe"] = _recipe(given)
    calibrated = given["recipe"].passes(given["calibration"])  # what is wrong ends it here
    if given["calibration"] and not (calibrated or given["target_size"] or given["target_bpw"]):
        _warn(["--calibration is not used: neither a pass nor a target asks for it"])
    kind = given["file_type"] or given["recipe"].type or "Q4_K_M"
    options = _planned(source, out, kind, given)
    with prepare(source, out, kind, given["imatrix"], options) as job:
        if given["plan_file"]:
            _check_plan(job, given["plan_file"])
        _show(job, given)


def _show(job: Any, given: dict[str, Any]) -> None:
    if given["dry_run"]:
        click.echo(json.dumps(_facts(job)) if given["as_json"] else _plan_text(job))
        _warnings(job)
        if job.lacking_importance and not given["recipe"].passes(given["calibration"]):
            _warn([f"{job.plan.file_type.name} needs importance: --imatrix, or --quality good"])
        return
    _notes(job)
    _foretell(job, given)
    told = len(job.warnings)  # passes may add to them
    with progress_bar(given["quiet"]) as progress:
        _prepasses(job, given, progress)
        facts = _facts(job) if given["as_json"] else {}  # before the file is there
        paths = job.run(progress)
    _warn(job.warnings[told:])
    if given["report"]:
        _report(job, paths[0], given)
    if given["as_json"]:
        click.echo(json.dumps({"files": [str(p) for p in paths], **facts}))
        return
    for path in paths:
        click.echo(printable(path, 4096))


def _report(job: Any, path: Path, given: dict[str, Any]) -> None:
    from ggq.converters.report.report import findings, held_back, write_report

    held = held_back(job, path, given["recipe"].passes(given["calibration"]))
    measured = job.imatrix.values if job.imatrix else {}
    importance = {**(held.power if held else {}), **measured}
    facts = {i.key: i.value for i in job.items if i.key.startswith("ggq.")}
    found = findings(path, job.original, importance)
    facts = {"file": Path(path).name, "type": job.plan.file_type.name, **facts}
    write_report(given["report"], found, facts, held)


def _planned(source: str, out: str | None, kind: str, given: dict[str, Any]) -> Any:
    """Return the options, with a type for each tensor where a target or a plan asks for it."""
    options = _options(given)
    target, bits = _size(given["target_size"]), given["target_bpw"]
    if not (target or bits or given["plan_file"]):
        return options
    if target and bits:
        raise UsageError("--target-size and --target-bpw: give one of them")
    if bits and bits != bits:  # click's range lets it through
        raise UsageError("--target-bpw nan: expected a number")
    if given["plan_file"] and not given["plan_file"].parent.is_dir():
        raise UsageError(f"--plan {printable(given['plan_file'])}: no such folder")
    from dataclasses import replace

    from ggq.converters.calibration import calibrate
    from ggq.converters.convert import prepare
    from ggq.converters.prepasses import allocation

    if target or bits:
        weighed = replace(options, outline=False)  # the choice asks for the weights
        with (
            prepare(source, out, kind, given["imatrix"], weighed) as job,
            progress_bar(given["quiet"]) as progress,
        ):
            budget = allocation.room(job, target or int(bits * job.n_elements / 8))
            windows = calibrate(job, given["calibration"], 256, 8, spread=True, starts=True)
            types = allocation.targeted(job, budget, windows, progress)
        if given["plan_file"]:
            allocation.write_plan(given["plan_file"], types)
    else:
        types = allocation.read_plan(given["plan_file"])
    pairs = (*options.mixture.tensor_types, *allocation.overrides(types))
    return replace(options, mixture=replace(options.mixture, tensor_types=pairs))


def _check_plan(job: Any, path: Path) -> None:
    """Name what a plan asks for and the file will not have: types of tensors that keep theirs."""
    from ggq.converters.prepasses.allocation import read_plan

    types, told = dict(job.plan.types), {name for name, _, _ in job.plan.fallbacks}
    for name, wanted in read_plan(path).items():
        if types[name] != wanted.upper() and name not in told:
            what = f"{printable(name)} stays {types[name]}, {printable(wanted)} is not for it"
            job.warnings.append(f"{printable(path)}: {what}")


def _recipe(given: dict[str, Any]) -> Any:
    """Return what --recipe holds, or --quality and --prepass as one."""
    from ggq.converters.prepasses.recipe import Recipe, read_recipe

    if given["recipe_file"] is None:
        return Recipe(quality=given["quality"], steps=tuple(given["prepasses"]))
    if given["quality"] or given["prepasses"]:
        raise UsageError("--recipe says which passes run: no --quality or --prepass with it")
    return read_recipe(given["recipe_file"])


def _foretell(job: Any, given: dict[str, Any]) -> None:
    """Say on stderr what the passes will take, before any work."""
    passes = given["recipe"].passes(given["calibration"])
    if not passes or given["quiet"]:
        return
    from ggq.converters.prepasses.estimates import estimate
    from ggq.runtime.cache.memory import free_memory

    found = estimate(job, passes, given["threads"])
    if found is None:
        return
    names = ", ".join(type(one).__module__.rpartition(".")[2] for one in passes)
    click.echo(f"{names}: {found}, at this machine's speed now", err=True)
    free = free_memory()
    if free is not None and found.nbytes > free:
        click.echo(f"warning: only {free / 1e9:.1f} GB of memory are free", err=True)


def _prepasses(job: Any, given: dict[str, Any], progress: Any) -> None:
    """Run the passes of --recipe, --quality and --prepass on the planned conversion."""
    passes = given["recipe"].passes(given["calibration"], progress)
    if passes:
        from ggq.converters.prepasses.recipe import run_passes

        run_passes(job, passes)


def _options(given: dict[str, Any]) -> Any:
    from ggq.converters.convert import Options
    from ggq.quants.mixtures import MixtureOptions

    pairs = []
    for text in given["tensor_types"]:
        pattern, equals, kind = text.rpartition("=")
        if not equals or not pattern:
            raise UsageError(f"--tensor-type {printable(text)}: expected REGEX=TYPE")
        pairs.append((pattern, kind))
    mixture = MixtureOptions(
        pure=given["pure"],
        tensor_types=tuple(pairs),
        output_tensor_type=given["output_tensor_type"],
        token_embedding_type=given["token_embedding_type"],
    )
    return Options(
        mixture=mixture,
        via=given["via"] and given["via"].lower(),
        allow_requantize=given["allow_requantize"],
        force=given["force"] or given["dry_run"],
        threads=given["threads"],
        split_max_bytes=_size(given["split_max_size"]),
        pre=given["pre"],
        check_tokenizer=not given["dry_run"],
        outline=given["dry_run"],
    )


def _size(text: str | None) -> int | None:
    return None if text is None else parse_size(text)


def _facts(job: Any) -> dict[str, Any]:
    """Return the plan as data: files with exact sizes, types, fallbacks."""
    shards = job.writer().plan()
    return {
        "type": job.plan.file_type.name,
        "architecture": job.arch,
        "bytes": sum(s.nbytes for s in shards),
        "shards": [{"path": str(s.path), "bytes": s.nbytes} for s in shards],
        "weights": job.n_elements,
        "tensors": dict(job.plan.types),
        "fallbacks": [{"tensor": n, "wanted": w, "used": u} for n, w, u in job.plan.fallbacks],
    }


def _plan_text(job: Any) -> str:
    facts = _facts(job)
    lines = []
    for name, kind in job.plan.types:
        tensor = job.tensors[name]
        shape = " x ".join(str(n) for n in tensor.shape)
        lines.append(f"{printable(name):<40} {shape:>18}  {tensor.type_name} -> {kind}")
    weights = Counter()
    for name, kind in job.plan.types:
        weights[kind] += prod(job.tensors[name].shape)
    share = ", ".join(f"{k} {100 * n / job.n_elements:.1f}%" for k, n in weights.most_common())
    lines.append(f"{facts['type']}: {len(job.plan.types)} tensors, weights: {share}")
    if job.plan.fallbacks:
        n, total = len(job.plan.fallbacks), len(job.plan.types)
        lines.append(f"{n} of {total} tensors fall back: rows are no multiple of the block")
    bits = 8 * facts["bytes"] / job.n_elements
    lines += [f"{printable(s['path'], 4096)}: {s['bytes']} bytes" for s in facts["shards"]]
    lines.append(
        f"{facts['bytes']} bytes, {facts['bytes'] / 2**20:.1f} MiB, {bits:.2f} bits a weight"
    )
    return "\n".join(lines)


def _warnings(job: Any) -> None:
    _warn(job.warnings)


def _notes(job: Any) -> None:
    """Say on stderr what a person should know before it starts."""
    if job.plan.fallbacks:
        name, wanted, used = job.plan.fallbacks[0]
        n, total = len(job.plan.fallbacks), len(job.plan.types)
        click.echo(
            f"{n} of {total} tensors fall back, such as {name}: {wanted} -> {used}", err=True
        )
    _warnings(job)
    if job.skipped:
        click.echo(f"left out: {len(job.skipped)} tensors of other parts", err=True)
    if job.imatrix:
        missing = [n for n, t in job.plan.types if "_K" in t and n not in job.imatrix.values]
        if missing:
            click.echo(f"no importance for {len(missing)} tensors, such as {missing[0]}", err=True)


def _warn(warnings: Iterable[str]) -> None:
    for warning in warnings:
        click.echo(f"warning: {warning}", err=True)
