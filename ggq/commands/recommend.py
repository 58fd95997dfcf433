"""Name the file type to take: the best one that fits in this machine and is fast enough."""

from __future__ import annotations

import click

from ggq.errors import UsageError

SECTION = "Convert"


@click.command()
@click.argument("source")
@click.option(
    "-c",
    "--ctx",
    default=8192,
    show_default=True,
    type=click.IntRange(min=1),
    help="Context that has to fit, in tokens.",
)
@click.option(
    "--speed",
    default=5.0,
    show_default=True,
    type=click.FloatRange(min=0),
    help="Tokens per second that it has to reach.",
)
@click.option(
    "--memory",
    type=click.FloatRange(min=0.001),
    metavar="GB",
    help="Memory that it has to fit in; default: what is free here.",
)
@click.option(
    "--bandwidth",
    type=click.FloatRange(min=0.1),
    metavar="GB/S",
    help="Memory bandwidth; default: measured here, in half a second.",
)
def command(
    source: str, ctx: int, speed: float, memory: float | None, bandwidth: float | None
) -> None:
    """Print the best file type for SOURCE that fits this machine and is fast enough.

    SOURCE is a Hugging Face folder, a repository id or a GGUF file.
    """
    from ggq.commands import _sizes
    from ggq.commands.estimate import measured_bandwidth
    from ggq.gguf.units import format_size
    from ggq.quants.file_types import FILE_TYPES
    from ggq.runtime.cache.memory import free_memory
    from ggq.runtime.cache.sizes import cache_bytes

    hp, found = _sizes.sizes(source)
    # Largest first is best first, as published mean KLD against F16 ranks these types.
    wanted = [size for size in found if FILE_TYPES[size.type].recommended]
    free = int(memory * 1e9) if memory else free_memory()
    rate = bandwidth * 1e9 if bandwidth else measured_bandwidth()
    n_ctx = min(ctx, hp.n_ctx_train)
    cache = cache_bytes(hp.memories, n_ctx)
    for size in wanted:
        if rate / size.per_token < speed:
            continue
        if free is None or _sizes.fits(size, cache, free):
            click.echo(size.type)
            memory_text = format_size(size.memory(cache))
            click.echo(
                f"{format_size(size.n_bytes)} on disk, {memory_text} in memory with {ctx} tokens, "
                f"{rate / size.per_token:.0f} tokens per second at most",
                err=True,
            )
            return
    smallest = wanted[-1]
    raise UsageError(
        f"nothing fits: {smallest.type} takes {format_size(smallest.memory(cache))} with {ctx} "
        f"tokens and reaches {rate / smallest.per_token:.1f} tokens per second"
    )
