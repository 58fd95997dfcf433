"""Measure tokens per second in llama-bench's rows, and the share of this machine's limit."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from typing import Any

import click

from ggq.commands._cache import cache_type, cached
from ggq.commands._devices import device_options, weights
from ggq.commands._models import MODEL, one_model
from ggq.hub import resolve_model
from ggq.progress import progress_bar

SECTION = "Measure"


@click.command()
@click.argument("model", required=False)
@MODEL
@click.option("-p", "--n-prompt", default=512, show_default=True, type=click.IntRange(0, 1 << 20))
@click.option("-n", "--n-gen", default=128, show_default=True, type=click.IntRange(0, 1 << 20))
@click.option("-d", "--n-depth", multiple=True, type=click.IntRange(0, 1 << 20), default=(0,))
@click.option(
    "-t",
    "--threads",
    type=click.IntRange(1, 1024),
    help="CPU threads; default: the physical cores.",
)
@click.option("-r", "--repetitions", default=5, show_default=True, type=click.IntRange(1, 1000))
@cached()
@device_options
@click.option("-o", "--output", type=click.Choice(["md", "csv", "json", "jsonl"]), default="md")
@click.option("--profile", is_flag=True, help="Show where the time of a decoded token goes.")
@click.option("-v", "--verbose", is_flag=True, help="Show which kernel serves which block type.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
def command(model: str | None, model_option: str | None, **given: Any) -> None:
    """Time MODEL as llama-bench does: a prompt (pp) and decoding (tg), mean and deviation.

    On the CPU decoding also shows the bytes of weights read per second and their share of the
    memory bandwidth that this machine reaches when it only reads, measured in the same run.
    """
    from ggq.runtime.engine.cpu.threads import default_threads
    from ggq.runtime.measure import benchmark, roofline
    from ggq.runtime.model import load

    model = one_model(model, model_option)
    if model is None:
        raise click.UsageError("Missing argument 'MODEL'.")
    threads = given["threads"] or default_threads()
    shape = (given["n_prompt"], given["n_gen"], tuple(given["n_depth"]))
    with load(
        weights(resolve_model(model), given),
        n_ctx=benchmark.context_needed(*shape),
        threads=threads,
        cache_type=cache_type(given),
        **{n: given[n] for n in ("device", "device_weights")},
    ) as opened:
        on_cpu = opened.device == "cpu"
        if given["verbose"] and on_cpu:
            for name, size, isa in benchmark.kernels_in_use(opened):
                click.echo(
                    f"{name} -> few and many tokens -> {isa} ({size / 1e6:.0f} MB)", err=True
                )
        bandwidth = roofline.read_bandwidth(threads) if on_cpu else None
        kinds = {k: given[f"cache_{k}"] or given["cache_type"] for k in ("type_k", "type_v")}
        with progress_bar(given["quiet"], live=False) as progress:
            results = benchmark.measure(
                opened,
                n_prompt=shape[0],
                n_gen=shape[1],
                depths=shape[2],
                repeats=given["repetitions"],
                progress=progress,
            )
            rows = [_row(opened, result, threads, bandwidth) | kinds for result in results]
        if given["profile"] and on_cpu:
            for depth in given["n_depth"]:
                _tell_profile(benchmark.profile(opened, depth), depth)
    click.echo(_FORMATS[given["output"]](rows))


def _tell_profile(spent: dict[str, float], depth: int) -> None:
    """Print microseconds and share of a decoded token per kind of operation, largest first."""
    total = sum(spent.values())
    click.echo(f"a token at {depth}: {total:.0f} us", err=True)
    for kind, each in sorted(spent.items(), key=lambda pair: -pair[1]):
        click.echo(f"{kind:<18} {each:9.1f} us {100 * each / total:5.1f} %", err=True)
    matmul = sum(us for kind, us in spent.items() if kind.startswith("linear"))
    other = total - matmul - spent.get("attention", 0.0)
    click.echo(f"neither matmul nor attention: {100 * other / total:.1f} %", err=True)


def _row(model: Any, result: Any, threads: int, bandwidth: float | None) -> dict[str, Any]:
    """Return a result under llama-bench's field names, and ours for the CPU's bandwidth."""
    from ggq import __version__
    from ggq.jit import ISA
    from ggq.runtime.measure.benchmark import weight_bytes_per_token

    timed = result.n_gen and bandwidth
    read = weight_bytes_per_token(model) * result.avg_ts if timed else None
    gguf = model.gguf
    return {
        "build_commit": __version__,
        "model_filename": str(gguf.path),
        "model_type": f"{gguf.metadata['general.architecture']} {_file_type(gguf)}",
        "model_size": sum(t.nbytes for t in gguf.tensors.values()),
        "model_n_params": sum(t.n_elements for t in gguf.tensors.values()),
        "backends": f"CPU ({ISA})" if bandwidth else model.device.upper(),
        "n_threads": threads,
        "n_prompt": result.n_prompt,
        "n_gen": result.n_gen,
        "n_depth": result.n_depth,
        "test": result.test,
        "avg_ns": sum(result.samples_ns) // len(result.samples_ns),
        "avg_ts": result.avg_ts,
        "stddev_ts": result.stddev_ts,
        "samples_ns": result.samples_ns,
        "samples_ts": result.samples_ts,
        "weights_bytes_per_s": read,
        "read_bandwidth_bytes_per_s": bandwidth,
        "share_of_read_bandwidth": read / bandwidth if read else None,
    }


def _file_type(gguf: Any) -> str:
    """Name the file's type as it says itself, else the type that holds most of the weights."""
    from ggq.gguf import spec

    named = spec.FILE_TYPES.get(gguf.get(spec.KEY_FILE_TYPE))
    if named:
        return named
    sizes: dict[str, int] = {}
    for tensor in gguf.tensors.values():
        sizes[tensor.type_name] = sizes.get(tensor.type_name, 0) + tensor.nbytes
    return max(sizes, key=lambda name: sizes[name])


_HEADINGS = ("model", "size", "params", "backend", "threads", "test", "t/s", "GB/s", "of read")


def _markdown(rows: list[dict[str, Any]]) -> str:
    cells = [_HEADINGS, tuple("-" * len(h) for h in _HEADINGS)]
    for r in rows:
        read, share = r["weights_bytes_per_s"], r["share_of_read_bandwidth"]
        cells.append(
            (
                r["model_type"],
                f"{r['model_size'] / 2**20:.2f} MiB",
                f"{r['model_n_params'] / 1e6:.2f} M",
                r["backends"],
                str(r["n_threads"]),
                r["test"],
                f"{r['avg_ts']:.2f} ± {r['stddev_ts']:.2f}",
                f"{read / 1e9:.1f}" if read else "",
                f"{100 * share:.0f} %" if share else "",
            )
        )
    widths = [max(len(row[i]) for row in cells) for i in range(len(_HEADINGS))]
    return "\n".join(
        "| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |"
        for row in cells
    )


def _csv(rows: list[dict[str, Any]]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, [k for k in rows[0] if not k.startswith("samples")])
    writer.writeheader()
    writer.writerows({k: v for k, v in r.items() if k in writer.fieldnames} for r in rows)
    return out.getvalue().rstrip("\r\n")


_FORMATS: dict[str, Callable[[list[dict[str, Any]]], str]] = {
    "md": _markdown,
    "csv": _csv,
    "json": lambda rows: json.dumps(rows, indent=2),
    "jsonl": lambda rows: "\n".join(json.dumps(r) for r in rows),
}
